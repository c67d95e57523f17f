"""Exported graphs, run by onnxruntime on what a robot would feed them."""

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_pave.export import ExportError, export_onnx, graph
from tests.export.agents import SpaceEnv, make, run


@pytest.mark.parametrize("algorithm", [SAC, TD3, PPO])
@pytest.mark.parametrize("batch", [1, 7])
def test_raw_observation_in_environment_scale_action_out(algorithm, batch, tmp_path):
    env = SpaceEnv(spaces.Box(-1, 1, (5,), np.float64))
    model = make(algorithm, env)
    assert export_onnx(model, tmp_path / "policy.onnx").comparison.difference <= 1e-5
    observations = np.random.default_rng(1).uniform(-1, 1, (batch, 5)).astype(np.float32)
    actions = run(tmp_path / "policy.onnx", observation=observations)
    np.testing.assert_allclose(actions, model.predict(observations, deterministic=True)[0], atol=1e-5)
    assert actions.shape == (batch, 2)


@pytest.mark.parametrize("name", ["PAVE_SAC", "PAVE_TD3"])
def test_pave_agents_are_exported(name, tmp_path):
    sb3_pave = pytest.importorskip("sb3_pave")
    model = make(getattr(sb3_pave, name), "Pendulum-v1")
    export_onnx(model, tmp_path / "policy.onnx")
    observation = np.array([[0.6, -0.8, 3.0]], np.float32)
    expected = model.predict(observation, deterministic=True)[0]
    np.testing.assert_allclose(run(tmp_path / "policy.onnx", observation=observation), expected, atol=1e-5)


def test_gsde_is_exported_at_its_clipped_mean(tmp_path):
    model = SAC(
        "MlpPolicy", "Pendulum-v1", use_sde=True, policy_kwargs={"net_arch": [8]}, seed=0, device="cpu", buffer_size=10
    )
    model.actor.mu[0].weight.data *= 100
    assert export_onnx(model, tmp_path / "policy.onnx").comparison.difference <= 1e-5


@pytest.mark.parametrize("from_file", [True, False])
def test_normalisation_is_in_the_graph(from_file, tmp_path):
    env = VecNormalize(make_vec_env("Pendulum-v1"), clip_obs=2.0)
    env.obs_rms.mean, env.obs_rms.var = np.array([0.5, -1.0, 100.0]), np.array([0.1, 4.0, 9.0])
    env.training = False
    model = make(SAC, env)
    env.save(str(tmp_path / "statistics.pkl"))
    export_onnx(model, tmp_path / "policy.onnx", tmp_path / "statistics.pkl" if from_file else env)
    observations = np.array([[0.4, 0.3, 99.0], [-1.0, 1.0, 130.0]], np.float32)
    by_hand = np.clip((observations - env.obs_rms.mean) / np.sqrt(env.obs_rms.var + 1e-8), -2, 2)
    expected = model.predict(by_hand.astype(np.float32), deterministic=True)[0]
    np.testing.assert_allclose(run(tmp_path / "policy.onnx", observation=observations), expected, atol=1e-5)


def test_statistics_of_training_come_before_those_around_the_environment_to_compare_in(tmp_path):
    model = make(SAC, VecNormalize(make_vec_env("Pendulum-v1")))
    statistics = model.get_vec_normalize_env().obs_rms
    statistics.mean, statistics.var = np.array([0.5, -1.0, 2.0]), np.array([0.1, 4.0, 9.0])
    fresh = VecNormalize(make_vec_env("Pendulum-v1"), training=False, norm_reward=False)
    export_onnx(model, tmp_path / "policy.onnx", env=fresh)
    observation = np.array([[0.6, -0.8, 3.0]], np.float32)
    expected = model.predict(model.get_vec_normalize_env().normalize_obs(observation), deterministic=True)[0]
    np.testing.assert_allclose(run(tmp_path / "policy.onnx", observation=observation), expected, atol=1e-5)


def test_images_go_in_as_bytes(tmp_path):
    model = make(SAC, SpaceEnv(spaces.Box(0, 255, (3, 36, 36), np.uint8)), "CnnPolicy")
    export_onnx(model, tmp_path / "policy.onnx")
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 36, 36), dtype=np.uint8)
    expected = model.predict(images, deterministic=True)[0]
    np.testing.assert_allclose(run(tmp_path / "policy.onnx", observation=images), expected, atol=1e-4)


def test_dict_observations_are_named_inputs_and_normalised_key_by_key(tmp_path):
    space = spaces.Dict(
        camera=spaces.Box(0, 255, (3, 36, 36), np.uint8), gear=spaces.Discrete(4), speed=spaces.Box(-50, 50, (2,), np.float32)
    )
    env = VecNormalize(DummyVecEnv([lambda: SpaceEnv(space)]), norm_obs_keys=["speed"], training=False)
    env.obs_rms["speed"].mean, env.obs_rms["speed"].var = np.array([10.0, 0.0]), np.array([25.0, 100.0])
    model = make(TD3, env, "MultiInputPolicy")
    export_onnx(model, tmp_path / "policy.onnx", env)
    rng = np.random.default_rng(0)
    inputs = {
        "camera": rng.integers(0, 256, (3, 3, 36, 36), dtype=np.uint8),
        "gear": np.array([0, 3, 1]),
        "speed": rng.uniform(-50, 50, (3, 2)).astype(np.float32),
    }
    normalised = np.clip((inputs["speed"] - [10.0, 0.0]) / [5.0, 10.0], -10, 10)
    seen = {**inputs, "speed": normalised.astype(np.float32)}
    expected = model.predict(seen, deterministic=True)[0]
    np.testing.assert_allclose(run(tmp_path / "policy.onnx", **inputs), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["TQC", "CrossQ"])
def test_contrib_agents_are_exported(name, tmp_path):
    contrib = pytest.importorskip("sb3_contrib")
    model = getattr(contrib, name)("MlpPolicy", "Pendulum-v1", seed=0, device="cpu", buffer_size=10)
    assert export_onnx(model, tmp_path / "policy.onnx").comparison.difference <= 1e-5


def test_a_graph_that_disagrees_is_not_written(tmp_path, monkeypatch):
    model = make(SAC, "Pendulum-v1")
    actor_output = graph.actor_output
    monkeypatch.setattr(graph, "actor_output", lambda policy, inputs: 0.9999 * actor_output(policy, inputs))
    with pytest.raises(ExportError, match=r"differs from model\.predict"):
        export_onnx(model, tmp_path / "policy.onnx")
    assert not (tmp_path / "policy.onnx").exists()


def test_what_cannot_be_exported_is_said(tmp_path):
    path = tmp_path / "policy.onnx"
    with pytest.raises(ExportError, match="continuous"):
        export_onnx(DQN("MlpPolicy", "CartPole-v1", device="cpu", buffer_size=10), path)
    other = VecNormalize(make_vec_env("MountainCarContinuous-v0"))
    with pytest.raises(ExportError, match=r"shape \(2,\); the model observes \(3,\)"):
        export_onnx(make(SAC, "Pendulum-v1"), path, other)
    (tmp_path / "statistics.pkl").write_bytes(b"broken")
    with pytest.raises(ExportError, match=r"statistics\.pkl"):
        export_onnx(make(SAC, "Pendulum-v1"), path, tmp_path / "statistics.pkl")
    contrib = pytest.importorskip("sb3_contrib")
    recurrent = contrib.RecurrentPPO("MlpLstmPolicy", "Pendulum-v1", n_steps=8, device="cpu")
    with pytest.raises(ExportError, match="RecurrentPPO"):
        export_onnx(recurrent, path)
    assert not path.exists()
