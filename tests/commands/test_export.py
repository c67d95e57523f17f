"""``sb3-pave export``: models and runs found, an environment made, one sentence for what goes wrong."""

import re

import numpy as np
import pytest
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

pytest.importorskip("onnxruntime")

from sb3_pave.commands import export as command
from sb3_pave.export.zoo_run import find_model
from tests.commands.test_evaluate import save_run
from tests.commands.test_evaluate import small as small_agent
from tests.export.agents import make, run


def export(*arguments):
    command.main([str(argument) for argument in arguments])


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        export(*arguments)
    assert stop.value.code == 1
    message = capsys.readouterr().err
    assert message.startswith("sb3-pave export: ") and "Traceback" not in message
    return message


@pytest.fixture
def must_not_trace(monkeypatch):
    def to_onnx(*args, **kwargs):
        raise AssertionError("traced")

    monkeypatch.setattr("sb3_pave.export.exporting.to_onnx", to_onnx)


def test_a_plain_zip_is_exported_and_nothing_overwritten(tmp_path, capsys):
    model = make(SAC, "Pendulum-v1")
    model.save(tmp_path / "model.zip")
    export(tmp_path / "model", tmp_path / "new" / "policy.onnx")  # as SB3 names it; the folder is made
    printed = capsys.readouterr().out
    assert "differ from model.predict by at most" in printed and "(observation -> action)" in printed
    assert int(re.search(r"(\d+) of the 312 compared were inside their bounds", printed)[1]) > 50
    observation = np.array([[0.6, -0.8, 3.0]], np.float32)
    expected = model.predict(observation, deterministic=True)[0]
    policy = tmp_path / "new" / "policy.onnx"
    np.testing.assert_allclose(run(policy, observation=observation), expected, atol=1e-5)
    assert "exists: choose another name, or overwrite it (--overwrite" in refused(capsys, tmp_path / "model.zip", policy)
    export(tmp_path / "model.zip", policy, "--overwrite", "--opset", 13, "--batch-size", 1)


def test_observations_and_tolerance_are_the_users(tmp_path, capsys):
    make(SAC, "Pendulum-v1").save(tmp_path / "model.zip")
    np.save(tmp_path / "seen.npy", np.random.default_rng(0).uniform(-1, 1, (7, 3)))
    arguments = (tmp_path / "model", tmp_path / "policy.onnx", "--observations", tmp_path / "seen.npy")
    export(*arguments, "--env", "Pendulum-v1")
    assert "at 7 given observations" in capsys.readouterr().out
    assert "differs from model.predict" in refused(capsys, *arguments, "--overwrite", "--tolerance", 1e-12)
    np.savez(tmp_path / "seen.npz", observation=np.zeros((2, 3)), other=np.zeros(2))
    assert "2 arrays" in refused(capsys, *arguments[:3], tmp_path / "seen.npz", "--overwrite")


def test_what_goes_wrong_is_one_sentence_and_said_beforehand(tmp_path, capsys, must_not_trace):
    make(SAC, "Pendulum-v1").save(tmp_path / "model.zip")
    model, policy = tmp_path / "model.zip", tmp_path / "policy.onnx"
    (tmp_path / "text.npy").write_text("1, 2, 3")
    np.save(tmp_path / "objects.npy", np.array({"a": 1}, dtype=object))
    (tmp_path / "broken.zip").write_bytes(b"broken")
    assert "missing does not exist" in refused(capsys, "missing", policy)
    assert "is a folder" in refused(capsys, tmp_path, policy)
    assert "broken.zip" in refused(capsys, tmp_path / "broken", policy)
    assert "is read, too" in refused(capsys, model, model, "--overwrite")
    assert "No such file" in refused(capsys, model, policy, "--observations", "missing.npy")
    for name in ("text.npy", "objects.npy"):
        message = refused(capsys, model, policy, "--observations", tmp_path / name)
        assert f"{name} holds no numbers: save the observations as an array by numpy.save" in message
        assert "pickle" not in message
    assert "opset" in refused(capsys, model, policy, "--opset", 3)
    assert "batch size" in refused(capsys, model, policy, "--batch-size", 0)
    assert "tolerance" in refused(capsys, model, policy, "--tolerance", "nan")
    assert "no_such_package" in refused(capsys, model, policy, "--gym-packages", "no_such_package")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["broken.zip", "model.zip", "objects.npy", "text.npy"]


def test_an_environment_is_named(tmp_path, capsys):
    pytest.importorskip("rl_zoo3")
    make(SAC, "Pendulum-v1").save(tmp_path / "model.zip")
    arguments = (tmp_path / "model", tmp_path / "policy.onnx", "--env")
    assert "NoSuch-v0" in refused(capsys, *arguments, "NoSuch-v0")
    assert "the environment takes" in refused(capsys, *arguments, "MountainCarContinuous-v0")
    export(*arguments, "Pendulum-v1")
    assert "at 500 observations of a rollout in Pendulum-v1" in capsys.readouterr().out


def test_a_run_of_the_zoo_brings_its_environment_statistics_and_replay_buffer(tmp_path, capsys):
    pytest.importorskip("rl_zoo3")
    run_folder = tmp_path / "sac" / "Pendulum-v1_1"
    settings = run_folder / "Pendulum-v1"
    settings.mkdir(parents=True)
    pendulum = make(SAC, "Pendulum-v1")
    pendulum.learn(8)
    pendulum.save(run_folder / "Pendulum-v1.zip")
    pendulum.save_replay_buffer(run_folder / "replay_buffer.pkl")
    env = VecNormalize(make_vec_env("Pendulum-v1"))
    env.obs_rms.mean, env.obs_rms.var = np.array([0.5, -1.0, 2.0]), np.array([0.1, 4.0, 9.0])
    env.save(str(settings / "vecnormalize.pkl"))
    (settings / "config.yml").write_text("normalize: true\n")
    arguments = "!!python/object/apply:collections.OrderedDict\n- - - env\n    - {}\n"
    (settings / "args.yml").write_text(arguments.format("Pendulum-v1"))

    for model in (run_folder, run_folder / "Pendulum-v1"):  # the latter is also a folder's name
        export(model, tmp_path / "policy.onnx", "--overwrite")
        printed = capsys.readouterr().out
        assert "500 observations of a rollout in Pendulum-v1" in printed and "vecnormalize.pkl" in printed
    observation = np.array([[0.6, -0.8, 3.0]], np.float32)
    expected = pendulum.predict(env.normalize_obs(observation), deterministic=True)[0]
    np.testing.assert_allclose(run(tmp_path / "policy.onnx", observation=observation), expected, atol=1e-5)

    (settings / "args.yml").write_text(arguments.format("NoSuch-v0"))
    export(run_folder, tmp_path / "policy.onnx", "--overwrite")
    printed = capsys.readouterr()
    assert "No rollout" in printed.err and "NoSuch-v0" in printed.err
    assert "8 observations of the replay buffer" in printed.out


@pytest.mark.parametrize(
    ("normalize", "is_refused"),
    [("true", True), ("'dict(norm_obs=True)'", True), ("\"{'norm_obs': False}\"", False), ("false", False)],
)
def test_a_run_with_normalisation_whose_statistics_are_missing_is_refused(tmp_path, capsys, normalize, is_refused):
    settings = tmp_path / "Pendulum-v1"
    settings.mkdir()
    (settings / "config.yml").write_text(f"normalize: {normalize}\n")
    make(SAC, "Pendulum-v1").save(tmp_path / "rl_model_10_steps.zip")
    env = VecNormalize(make_vec_env("Pendulum-v1"))
    env.save(str(tmp_path / "elsewhere.pkl"))
    arguments = (tmp_path / "rl_model_10_steps", tmp_path / "policy.onnx")
    if is_refused:
        assert "name their file by --vec-normalize" in refused(capsys, *arguments)
        assert not (tmp_path / "policy.onnx").exists()
        arguments = (*arguments, "--vec-normalize", tmp_path / "elsewhere.pkl")
    export(*arguments)
    assert (tmp_path / "policy.onnx").exists()


def test_statistics_saved_with_the_model_are_used_and_bare_ones_named(tmp_path, capsys):
    model, policy = make(SAC, "Pendulum-v1"), tmp_path / "policy.onnx"
    model.save(tmp_path / "smoothest_model.zip")
    env = VecNormalize(make_vec_env("Pendulum-v1"))
    env.save(str(tmp_path / "vecnormalize.pkl"))  # of the end of training
    export(tmp_path / "smoothest_model.zip", policy)
    printed = capsys.readouterr()
    assert "--vec-normalize" in printed.err and "normalised" not in printed.out

    env.obs_rms.mean, env.obs_rms.var = np.array([0.5, -1.0, 2.0]), np.array([0.1, 4.0, 9.0])
    env.save(str(tmp_path / "smoothest_model_vecnormalize.pkl"))
    observation = np.array([[0.6, -0.8, 3.0]], np.float32)
    expected = model.predict(env.normalize_obs(observation), deterministic=True)[0]
    settings = tmp_path / "Pendulum-v1"
    for in_the_zoo in (False, True):
        if in_the_zoo:
            settings.mkdir()
            (tmp_path / "vecnormalize.pkl").rename(settings / "vecnormalize.pkl")
        export(tmp_path / "smoothest_model.zip", policy, "--overwrite")
        printed = capsys.readouterr()
        assert "smoothest_model_vecnormalize.pkl" in printed.out and "--vec-normalize" not in printed.err
        np.testing.assert_allclose(run(policy, observation=observation), expected, atol=1e-5)


def test_statistics_beside_are_used_by_their_own_model_alone(tmp_path, capsys):
    """As users keep agents: one zip beside the other, and beside one of them a folder of its name."""
    for name in ("mine", "other"):
        make(SAC, "Pendulum-v1").save(tmp_path / f"{name}.zip")
    (tmp_path / "other").mkdir()
    VecNormalize(make_vec_env("Pendulum-v1")).save(str(tmp_path / "other" / "vecnormalize.pkl"))
    export(tmp_path / "mine.zip", tmp_path / "mine.onnx", "--env", "Pendulum-v1")
    assert "normalised" not in capsys.readouterr().out
    export(tmp_path / "other.zip", tmp_path / "other.onnx", "--env", "Pendulum-v1")
    assert f"normalised in the graph with {tmp_path / 'other' / 'vecnormalize.pkl'}" in capsys.readouterr().out


def test_what_a_run_is_of_is_known_without_its_arguments_too(tmp_path):
    run = save_run(tmp_path, "sac", 1, small_agent(SAC), {"normalize": "{'norm_reward': False}"})
    (run / "Pendulum-v1" / "args.yml").unlink()
    saved = find_model(run)
    assert saved.env_id == "Pendulum-v1" and saved.is_normalised
