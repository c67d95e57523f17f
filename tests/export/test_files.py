"""Names and versions in the exported file, and what happens where it can't be written."""

import errno
import os
import sys

import numpy as np
import onnx
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from sb3_pave.export import ExportError, export_onnx, exporting
from sb3_pave.export.destination import destination
from tests.export.agents import SpaceEnv, make, onnxruntime, run

BOX = spaces.Box(-1, 1, (4,), np.float32)


@pytest.fixture
def must_not_trace(monkeypatch):
    """What can be known beforehand is said before the expensive part."""

    def to_onnx(*args, **kwargs):
        raise AssertionError("traced")

    monkeypatch.setattr(exporting, "to_onnx", to_onnx)


@pytest.mark.parametrize(
    ("keys", "output"),
    [
        (["state", "action"], "action_output"),
        (["action", "action_output", "observation"], "action_output_output"),
        (
            ["add", "mul", "linear", "relu", "tanh", "val_0", "batch", "observation_1", "joint pos", "a/b:c"],
            "action",
        ),
    ],
)
@pytest.mark.parametrize("opset", [13, 18])
def test_any_keys_of_a_dict_name_the_inputs(keys, output, opset, tmp_path):
    model = make(SAC, SpaceEnv(spaces.Dict({key: BOX for key in keys})), "MultiInputPolicy", factor=1.0)
    found = export_onnx(model, tmp_path / "policy.onnx", opset=opset)
    assert found.inputs == tuple(model.observation_space) and found.output == output
    rng = np.random.default_rng(0)
    observations = {key: rng.uniform(-1, 1, (3, 4)).astype(np.float32) for key in keys}
    expected = model.predict(observations, deterministic=True)[0]
    np.testing.assert_allclose(run(tmp_path / "policy.onnx", output, **observations), expected, atol=1e-5)


@pytest.mark.parametrize(("opset", "ir_version"), [(13, 7), (17, 8), (18, 8), (20, 9)])
@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_versions_and_shapes_are_what_was_asked_for(opset, ir_version, batch_size, tmp_path):
    env = VecNormalize(DummyVecEnv([lambda: SpaceEnv(BOX)]), training=False)
    model = make(TD3, env)
    export_onnx(model, tmp_path / "policy.onnx", opset=opset, batch_size=batch_size)
    proto = onnx.load(tmp_path / "policy.onnx")
    onnx.checker.check_model(proto, full_check=True)
    assert proto.ir_version == ir_version and [one.version for one in proto.opset_import] == [opset]
    assert not proto.graph.value_info and not proto.graph.doc_string and not proto.metadata_props
    assert not any(node.doc_string or node.metadata_props for node in proto.graph.node)
    for value in (*proto.graph.input, *proto.graph.output):
        batch, size = value.type.tensor_type.shape.dim
        assert batch.dim_value == (batch_size or 0) and size.dim_value == (4 if value.name == "observation" else 2)
    types = {one.data_type for one in proto.graph.initializer}
    types |= {a.t.data_type for node in proto.graph.node for a in node.attribute if a.HasField("t")}
    types |= {a.i for node in proto.graph.node if node.op_type == "Cast" for a in node.attribute}
    assert onnx.TensorProto.DOUBLE not in types and onnx.TensorProto.FLOAT in types


@pytest.mark.parametrize("opset", [0, 8, 1000, 18.0, True, None])
def test_an_opset_that_there_is_not_is_refused(opset, must_not_trace):
    with pytest.raises(ExportError, match="opset is a whole number from 9"):
        export_onnx(make(SAC, SpaceEnv(BOX)), "policy.onnx", opset=opset)


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, "1", True])
def test_a_batch_size_that_there_is_not_is_refused(batch_size, must_not_trace):
    with pytest.raises(ExportError, match="batch size is a whole number"):
        export_onnx(make(SAC, SpaceEnv(BOX)), "policy.onnx", batch_size=batch_size)


class Inverse(nn.Module):
    """An activation that no opset has an operator for."""

    def forward(self, x):
        return x @ th.linalg.inv(2.0 * th.eye(x.shape[-1]))


def test_an_opset_that_lacks_an_operator_is_said_and_the_graph_not_printed(tmp_path, capfd):
    with pytest.raises(ExportError, match="exporter failed on this policy with opset 13"):
        export_onnx(make(SAC, SpaceEnv(BOX), activation_fn=Inverse), tmp_path / "policy.onnx", opset=13)
    assert capfd.readouterr() == ("", "")


def test_of_what_the_exporter_prints_only_its_error_is_said(tmp_path, monkeypatch, capfd):
    def export(*args, **kwargs):
        print("all of the policy")
        print("all of the policy", file=sys.stderr)
        raise RuntimeError("no such operator")

    monkeypatch.setattr(th.onnx, "export", export)
    with pytest.raises(ExportError, match=r"exporter failed .*: no such operator"):
        export_onnx(make(SAC, SpaceEnv(BOX)), tmp_path / "policy.onnx")
    print("afterwards")
    assert capfd.readouterr() == ("afterwards\n", "")


class OneOfThree(BaseFeaturesExtractor):
    """Makes use of the second entry, called ``b``."""

    def __init__(self, space):
        super().__init__(space, 4)

    def forward(self, observations):
        return observations["b"]


@pytest.mark.parametrize("batch_size", [None, 1])
def test_entries_that_the_policy_ignores_are_inputs_nevertheless(batch_size, tmp_path):
    space = spaces.Dict(a=spaces.Discrete(3), b=BOX, c=spaces.Box(0, 255, (36, 36, 1), np.uint8))
    model = make(SAC, SpaceEnv(space), "MultiInputPolicy", features_extractor_class=OneOfThree)
    export_onnx(model, tmp_path / "policy.onnx", opset=13, batch_size=batch_size)
    inputs = onnxruntime.InferenceSession(tmp_path / "policy.onnx").get_inputs()
    batch = batch_size or "batch"
    assert [(one.name, one.type, one.shape) for one in inputs] == [
        ("a", "tensor(int64)", [batch]),
        ("b", "tensor(float)", [batch, 4]),
        ("c", "tensor(uint8)", [batch, 1, 36, 36]),
    ]
    observation = {"a": np.array([2]), "b": np.float32([[0.1, -0.2, 0.3, 0.0]]), "c": np.ones((1, 1, 36, 36), np.uint8)}
    expected = model.predict(observation, deterministic=True)[0]
    np.testing.assert_allclose(run(tmp_path / "policy.onnx", **observation), expected, atol=1e-5)


def refused_paths(folder):
    (folder / "file").write_bytes(b"")
    (folder / "loop").symlink_to(folder / "loop")
    return {
        folder: "is a folder",
        folder / "file" / "policy.onnx": "folder is a file",
        folder / "file" / "deeper" / "policy.onnx": "Not a directory",
        folder / "loop" / "policy.onnx": "can't be written",
        folder / ("x" * 300): "File name too long",
        folder / "null\0.onnx": "null",
        "/proc/policy.onnx": "can't be written",
        "/dev/null": "no ordinary file",
    }


def test_where_no_file_can_be_is_said_beforehand(tmp_path, must_not_trace):
    model = make(SAC, SpaceEnv(BOX))
    for path, message in refused_paths(tmp_path).items():
        with pytest.raises(ExportError, match=message):
            export_onnx(model, path, overwrite=True)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "loop"]


def test_a_folder_is_made_and_what_exists_is_kept(tmp_path, must_not_trace):
    model = make(SAC, SpaceEnv(BOX))
    kept = tmp_path / "policy.onnx"
    kept.write_bytes(b"precious")
    (tmp_path / "nowhere.onnx").symlink_to(tmp_path / "gone")
    for path in (kept, tmp_path / "nowhere.onnx"):
        with pytest.raises(FileExistsError, match="exists"):
            export_onnx(model, path)
    with destination(tmp_path / "a" / "b" / "policy.onnx", overwrite=False) as write:
        write(b"graph")
    assert (tmp_path / "a" / "b" / "policy.onnx").read_bytes() == b"graph"
    assert [one.name for one in (tmp_path / "a" / "b").iterdir()] == ["policy.onnx"]
    assert kept.read_bytes() == b"precious"


def test_an_interrupted_export_leaves_neither_file_nor_folder(tmp_path):
    kept = tmp_path / "kept.onnx"
    kept.write_bytes(b"precious")
    for path in (tmp_path / "a" / "b" / "policy.onnx", kept):
        with pytest.raises(KeyboardInterrupt), destination(path, overwrite=True):
            raise KeyboardInterrupt
    assert [one.name for one in tmp_path.iterdir()] == ["kept.onnx"] and kept.read_bytes() == b"precious"


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    kept = tmp_path / "kept.onnx"
    kept.write_bytes(b"precious")

    def full(*paths):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ExportError, match="No space left"), destination(kept, overwrite=True) as write:
        write(b"graph")
    assert [one.name for one in tmp_path.iterdir()] == ["kept.onnx"] and kept.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "EOFError"),
        (b"broken", "UnpicklingError"),
        (b"cno_such_module\nThing\n.", "ModuleNotFoundError"),
        (b"cos\nno_such_thing\n.", "AttributeError"),
        (b"I1\n.", "holds a int"),
        (None, "No such file"),
    ],
)
def test_statistics_that_cannot_be_read_are_said(content, message, tmp_path, must_not_trace):
    file = tmp_path / "statistics.pkl"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ExportError, match=rf"statistics\.pkl .*{message}"):
        export_onnx(make(SAC, SpaceEnv(BOX)), tmp_path / "policy.onnx", file)
    with pytest.raises(ExportError, match="Is a directory"):
        export_onnx(make(SAC, SpaceEnv(BOX)), tmp_path / "policy.onnx", tmp_path)


@pytest.mark.parametrize(
    ("mean", "variance"), [(np.nan, 1.0), (np.inf, 1.0), (1e300, 1.0), (0.0, np.nan), (0.0, np.inf), (0.0, 1e100), (0.0, 0.0)]
)
def test_statistics_beyond_float32_are_refused(mean, variance, must_not_trace):
    env = VecNormalize(DummyVecEnv([lambda: SpaceEnv(BOX)]), training=False, epsilon=0.0)
    env.obs_rms.mean, env.obs_rms.var = np.full(4, mean), np.full(4, variance)
    with pytest.raises(ExportError, match="not finite numbers in float32"):
        export_onnx(make(SAC, env), "policy.onnx")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Box(-1, 1, (2,), np.float32), r"shape \(2,\); the model observes \(4,\) \(stacked frames"),
        (spaces.Dict(speed=BOX), "'speed' have shape .* observes nothing of that name"),
    ],
    ids=["shape", "name"],
)
def test_statistics_of_other_observations_are_refused(space, message, must_not_trace):
    env = VecNormalize(DummyVecEnv([lambda: SpaceEnv(space)]), training=False)
    with pytest.raises(ExportError, match=message):
        export_onnx(make(SAC, SpaceEnv(BOX)), "policy.onnx", env)


def test_what_onnxruntime_raises_is_a_sentence(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise onnxruntime.capi.onnxruntime_pybind11_state.Fail("This is an invalid model")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(ExportError, match=r"onnxruntime refuses the exported graph: .*invalid model"):
        export_onnx(make(PPO, SpaceEnv(BOX)), tmp_path / "new" / "policy.onnx")
    assert not any(tmp_path.iterdir())


def test_a_policy_that_is_not_finite_is_refused(must_not_trace, tmp_path):
    model = make(SAC, SpaceEnv(BOX))
    model.actor.mu.bias.data[0] = np.nan
    with pytest.raises(ExportError, match="not finite"):
        export_onnx(model, tmp_path / "policy.onnx")
