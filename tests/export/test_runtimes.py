"""Exported graphs in engines other than today's onnxruntime; those that are not installed are skipped."""

import numpy as np
import onnx.reference
import pytest
from gymnasium import spaces
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_pave.export import export_onnx
from tests.export.agents import SpaceEnv, make

DICT = spaces.Dict(
    action=spaces.Box(-1, 1, (2,), np.float32), gear=spaces.Discrete(4), speed=spaces.Box(-1000, 1000, (3,), np.float32)
)
SPACES = {
    "vector": spaces.Box(-1000, 1000, (5,), np.float64),
    "dict": DICT,
    "image": spaces.Box(0, 255, (3, 36, 36), np.uint8),
    "integers": spaces.Box(-(2**31), 2**31 - 1, (3,), np.int32),
}


def reference(path, observations):
    return onnx.reference.ReferenceEvaluator(path).run(None, observations)[0]


def tract(path, observations):
    model = pytest.importorskip("tract").onnx().load(path)
    names = [model.input_name(i) for i in range(model.input_count())]
    short = {"float32": "f32", "uint8": "u8", "int32": "i32", "int64": "i64"}
    for i, name in enumerate(names):  # whatever batch the file has, it takes this one
        value = observations[name]
        model.set_input_fact(i, ",".join([*map(str, value.shape), short[str(value.dtype)]]))
    return model.into_model().into_runnable().run([observations[name] for name in names])[0].to_numpy()


def openvino(path, observations):
    core = pytest.importorskip("openvino").Core()
    compiled = core.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(observations)[0]


CASES = [
    (SAC, "vector", 18, None),
    (TD3, "vector", 18, 2),
    (PPO, "vector", 13, None),
    (SAC, "dict", 18, 2),
    (SAC, "image", 18, None),
    (TD3, "integers", 18, 2),
]


@pytest.fixture(scope="module", params=CASES, ids=str)
def exported(request, tmp_path_factory):
    """A file, observations and the actions that model.predict answers with."""
    algorithm, kind, opset, batch_size = request.param
    policy = {"dict": "MultiInputPolicy", "image": "CnnPolicy"}.get(kind, "MlpPolicy")
    env, normalization = SpaceEnv(SPACES[kind]), None
    if kind != "image":
        keys = ["action", "speed"] if kind == "dict" else None
        normalization = env = VecNormalize(DummyVecEnv([lambda: SpaceEnv(SPACES[kind])]), training=False, norm_obs_keys=keys)
        moments = env.obs_rms["speed"] if kind == "dict" else env.obs_rms
        moments.mean, moments.var = moments.mean + 300.0, moments.var * 100.0
    model = make(algorithm, env, policy)
    path = tmp_path_factory.mktemp("exported") / "policy.onnx"
    found = export_onnx(model, path, opset=opset, batch_size=batch_size)
    rng = np.random.default_rng(0)
    drawn = {
        "gear": np.array([3, 1]),
        "action": rng.uniform(-1, 1, (2, 2)).astype(np.float32),
        "speed": rng.normal(300, 10, (2, 3)).astype(np.float32),
        "observation": {
            "image": rng.integers(0, 256, (2, 3, 36, 36), dtype=np.uint8),
            "integers": rng.normal(300, 10, (2, 3)).astype(np.int32),
        }.get(kind, rng.normal(300, 10, (2, 5)).astype(np.float32)),
    }
    observations = {name: drawn[name] for name in found.inputs}
    raw = observations if kind == "dict" else observations["observation"]
    expected, _ = model.predict(raw if normalization is None else normalization.normalize_obs(raw), deterministic=True)
    return str(path), observations, expected


@pytest.mark.parametrize("engine", [reference, tract, openvino])
def test_other_engines_act_alike(engine, exported):
    path, observations, expected = exported
    np.testing.assert_allclose(engine(path, observations), expected, atol=1e-4)
