"""Noise: how large, where it enters, what it leaves alone."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize

from sb3_pave.evaluation.robustness import evaluate_robustness, observation_scale
from sb3_pave.evaluation.rollout import record_rollout


class FixedEnv(gym.Env):
    """Observes the same thing for a hundred steps; remembers the actions sent."""

    action_space = spaces.Box(-10, 10, (2,), np.float64)

    def __init__(self, observation_space=None, observation=None):
        self.observation_space = observation_space or spaces.Box(-1, 1, (2,), np.float64)
        self.observation = np.zeros(2) if observation is None else observation

    def reset(self, seed=None, options=None):
        self.steps = 0
        return self.observation, {}

    def step(self, action):
        self.steps += 1
        return self.observation, 0.0, False, self.steps == 100, {}


class Echo:
    """Policy that answers what it sees."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return observation, state


@pytest.fixture(scope="module")
def sac():
    return SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, seed=0, device="cpu")


@pytest.mark.parametrize("wrap", [lambda env: env, lambda env: VecNormalize(env, training=False)])
def test_without_noise_it_is_the_plain_evaluation_bit_for_bit(sac, wrap):
    env = wrap(make_vec_env("Pendulum-v1", n_envs=2))
    noisy = evaluate_robustness(sac, env, noise_levels=[0.0, 0.1], n_eval_episodes=2, seed=7)
    plain = record_rollout(sac, env, n_eval_episodes=2, seed=7)
    for with_zero, without in zip(noisy[0.0].episodes, plain.episodes, strict=True):
        np.testing.assert_array_equal(with_zero.actions, without.actions)
        assert with_zero.total_reward == without.total_reward
    assert noisy[0.1].episodes[0].total_reward != plain.episodes[0].total_reward


def test_noise_is_uniform_of_the_given_size_in_each_dimension():
    env = Monitor(FixedEnv())
    recorded = evaluate_robustness(Echo(), env, [0.1], scale=np.array([1.0, 5.0]), n_eval_episodes=20)[0.1]
    seen = np.concatenate([episode.actions for episode in recorded.episodes])
    assert (np.abs(seen) <= [0.1, 0.5]).all()
    # A uniform variable on (-a, a) has standard deviation a / sqrt(3); 2000 samples
    np.testing.assert_allclose(seen.std(axis=0), np.array([0.1, 0.5]) / np.sqrt(3), rtol=0.05)
    assert abs(np.corrcoef(seen.T)[0, 1]) < 0.1


def test_noise_does_not_leave_the_observation_space():
    env = Monitor(FixedEnv(observation=np.array([0.95, 0.0])))
    recorded = evaluate_robustness(Echo(), env, [1.0], scale=np.array([1.0, 0.0]), n_eval_episodes=2)[1.0]
    seen = np.concatenate([episode.actions for episode in recorded.episodes])
    assert seen[:, 0].max() == 1.0
    assert (seen[:, 1] == 0.0).all()


def test_noise_enters_before_normalisation_and_frame_stacking():
    """Frames of a stack keep the noise they were seen with; the running statistics scale it."""
    env = make_vec_env(FixedEnv)
    env = VecNormalize(env, training=False, clip_obs=100.0)
    env.obs_rms.mean, env.obs_rms.var = np.zeros(2), np.full(2, 0.01**2)
    env = VecFrameStack(env, n_stack=2)
    stacked = []

    class Watch(Echo):
        def predict(self, observation, **kwargs):
            stacked.append(observation[0].copy())
            return observation[:, :2], None

    evaluate_robustness(Watch(), env, [0.5], scale=np.array([0.1, 0.1]), n_eval_episodes=1)
    frames = np.array(stacked)
    np.testing.assert_array_equal(frames[1:, :2], frames[:-1, 2:])
    assert 4.0 < np.abs(frames).max() <= 5.0  # 0.5 * 0.1 / 0.01


def test_the_wrappers_are_put_back_also_after_an_error():
    env = VecNormalize(make_vec_env(FixedEnv))
    inside = env.venv

    class Broken(Echo):
        def predict(self, *args, **kwargs):
            raise RuntimeError("broken policy")

    with pytest.raises(RuntimeError, match="broken policy"):
        evaluate_robustness(Broken(), env, [0.1], scale=np.ones(2))
    assert env.venv is inside


def test_the_scale_is_the_standard_deviation_of_raw_observations(sac):
    env = VecNormalize(make_vec_env("Pendulum-v1"), training=False)
    env.obs_rms.mean, env.obs_rms.var = np.array([0.5, 0.0, 1.0]), np.array([4.0, 9.0, 16.0])
    scale = observation_scale(sac, env, n_eval_episodes=2, seed=1)
    # VecNormalize undone by hand; the sensors also see the reset that ends the last episode
    episodes = record_rollout(sac, env, n_eval_episodes=3, seed=1).episodes
    seen = np.concatenate([*(episode.observations for episode in episodes[:2]), episodes[2].observations[:1]])
    raw = seen * np.sqrt(env.obs_rms.var + env.epsilon) + env.obs_rms.mean
    np.testing.assert_allclose(scale, raw.std(axis=0), rtol=1e-4)


def test_the_scale_is_of_all_environments_together(sac):
    env, seen = make_vec_env("Pendulum-v1", n_envs=3), []

    def look(locals_, globals_):
        if locals_["i"] == 0:
            seen.append(locals_["new_observations"] if seen else [*locals_["observations"], *locals_["new_observations"]])

    scale = observation_scale(sac, env, n_eval_episodes=3, seed=1, callback=look)
    assert len(np.concatenate(seen)) == 3 * (1 + 200)
    np.testing.assert_allclose(scale, np.concatenate(seen).std(axis=0, dtype=np.float64))


def test_same_seed_same_noise(sac):
    env = make_vec_env("Pendulum-v1")
    first, second = (evaluate_robustness(sac, env, [0.1], n_eval_episodes=1, seed=3)[0.1].episodes[0] for _ in range(2))
    np.testing.assert_array_equal(first.actions, second.actions)


def test_categories_are_left_alone_and_integers_stay_integers():
    space = spaces.Dict(kind=spaces.Discrete(3), pixels=spaces.Box(0, 255, (2,), np.uint8))
    observation = {"kind": 2, "pixels": np.array([250, 3], np.uint8)}
    seen = []

    class Watch(Echo):
        def predict(self, observation, **kwargs):
            seen.append(observation)
            return observation["pixels"].astype(np.float64), None

    env = Monitor(FixedEnv(space, observation))
    evaluate_robustness(Watch(), env, [1.0], scale={"kind": np.array(1.0), "pixels": np.full(2, 20.0)}, n_eval_episodes=1)
    assert {int(one["kind"][0]) for one in seen} == {2}
    pixels = np.concatenate([one["pixels"] for one in seen])
    assert pixels.dtype == np.uint8
    assert pixels[:, 0].max() == 255 and pixels[:, 1].min() == 0 and len(np.unique(pixels)) > 10


def test_a_goal_is_told_and_not_sensed():
    boxes = {key: spaces.Box(-1, 1, (2,), np.float64) for key in ("observation", "achieved_goal", "desired_goal")}
    quiet = {key: np.zeros(2) for key in boxes}
    seen = []

    class Watch(Echo):
        def predict(self, observation, **kwargs):
            seen.append(observation)
            return observation["observation"], None

    def deviations(keys):
        seen.clear()
        env = Monitor(FixedEnv(spaces.Dict({key: boxes[key] for key in keys}), {key: quiet[key] for key in keys}))
        evaluate_robustness(Watch(), env, [1.0], scale={key: np.ones(2) for key in keys}, n_eval_episodes=1)
        return {key: np.std([one[key] for one in seen]) for key in keys}

    with_goals = deviations(boxes)
    assert with_goals["desired_goal"] == 0 and min(with_goals["observation"], with_goals["achieved_goal"]) > 0.5
    assert min(deviations(["observation", "desired_goal"]).values()) > 0.5  # an entry of the user's that has the name


@pytest.mark.parametrize(
    ("levels", "scale", "message"),
    [
        ([-0.1], np.ones(2), "not negative"),
        ([np.inf], np.ones(2), "finite"),
        ([0.1], np.ones(3), r"shape \(3,\), the observations \(2,\)"),
        ([0.1], np.array([1.0, np.nan]), "finite"),
    ],
)
def test_bad_input_is_named(levels, scale, message):
    with pytest.raises(ValueError, match=message):
        evaluate_robustness(Echo(), Monitor(FixedEnv()), levels, scale=scale)


def test_noise_of_less_than_half_a_unit_reaches_integers():
    """Uniform in ±0.3: up or down by one with a chance of 0.3 / 4 each, which keeps the mean."""
    seen = []

    class Watch(Echo):
        def predict(self, observation, **kwargs):
            seen.append(observation)
            return np.zeros((1, 2)), None

    pixels = np.full(2000, 100, np.uint8)
    env = Monitor(FixedEnv(spaces.Box(0, 255, pixels.shape, np.uint8), pixels))
    evaluate_robustness(Watch(), env, [0.0, 0.1], scale=np.full(2000, 3.0), n_eval_episodes=1)
    quiet, noisy = np.split(np.concatenate(seen), 2)
    assert (quiet == 100).all() and set(np.unique(noisy)) == {99, 100, 101}
    chances = [(noisy == value).mean() for value in (99, 101)]
    np.testing.assert_allclose(chances, 0.3 / 4, atol=4 * np.sqrt(0.075 / noisy.size))


def test_scale_and_noise_are_of_the_episodes_that_were_asked_for():
    seeds, drawn, steps = [], set(), []

    class Seeded(FixedEnv):
        def reset(self, seed=None, options=None):
            seeds.extend([] if seed is None else [seed])
            return super().reset()

    class Watch(Echo):
        def predict(self, observation, deterministic, **kwargs):
            drawn.add(not deterministic)
            return observation, None

    def count(locals_, globals_):
        steps.append(locals_["i"])

    how = {"n_eval_episodes": 2, "deterministic": False, "seed": 6, "callback": count}
    evaluate_robustness(Watch(), Monitor(Seeded()), [0.1], **how)
    assert (seeds, drawn, len(steps)) == ([6, 6], {True}, (2 + 2) * 100)


def test_another_seed_is_other_noise():
    first, second = (
        evaluate_robustness(Echo(), Monitor(FixedEnv()), [0.1], np.ones(2), n_eval_episodes=1, seed=seed)[0.1].episodes[0]
        for seed in (3, 4)
    )
    assert not np.isclose(first.actions, second.actions).any()
