"""The recorder against evaluate_policy itself, and against environments that say what they were sent."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_pave.evaluation.exploration import drawn_for_each_episode
from sb3_pave.evaluation.rollout import Episode, record_rollout, stack_observations
from sb3_pave.evaluation.smoothness import high_frequency_share, smoothness_score


class CountingEnv(gym.Env):
    """Observes how many steps it has made; lasts three, then four, then five ... steps; pays the action."""

    observation_space = spaces.Box(0, 100, (1,), np.float32)
    action_space = spaces.Box(-2, 2, (1,), np.float32)

    def __init__(self):
        self.resets = 0

    def reset(self, seed=None, options=None):
        self.resets += 1
        self.steps = 0
        return self._observation(), {}

    def step(self, action):
        self.steps += 1
        return self._observation(), float(action[0]), self.steps == self.resets + 2, False, {}

    def _observation(self):
        return np.array([self.steps], np.float32)


class TenthOfObservation:
    """Policy that answers a tenth of what it sees."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return 0.1 * observation, state


@pytest.fixture(scope="module")
def sac():
    return SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, seed=0, device="cpu")


def test_an_episode_holds_what_was_seen_done_and_paid():
    episodes = record_rollout(TenthOfObservation(), Monitor(CountingEnv()), n_eval_episodes=2).episodes
    assert [episode.length for episode in episodes] == [3, 4]
    np.testing.assert_array_equal(episodes[1].observations, [[0], [1], [2], [3]])
    np.testing.assert_allclose(episodes[1].actions, [[0], [0.1], [0.2], [0.3]])
    np.testing.assert_allclose(episodes[1].rewards, [0, 0.1, 0.2, 0.3])
    assert episodes[1].total_reward == pytest.approx(0.6)


def test_an_environment_that_changes_its_action_in_place_leaves_the_recorded_one_alone():
    class Scaling(CountingEnv):
        def step(self, action):
            action *= 2.0
            return super().step(action)

    env = make_vec_env(Scaling)
    (episode,) = record_rollout(TenthOfObservation(), env, n_eval_episodes=1).episodes
    np.testing.assert_allclose(episode.actions, [[0], [0.1], [0.2]])
    np.testing.assert_allclose(episode.rewards, [0, 0.2, 0.4])
    assert "step" not in vars(env)
    env.step = own = env.step
    record_rollout(TenthOfObservation(), env, n_eval_episodes=1)
    assert vars(env)["step"] is own  # one that a user has put there


def test_a_predictor_may_use_its_arrays_again():
    class Filter:
        action = np.zeros((1, 1))

        def predict(self, observation, **kwargs):
            self.action += 0.5 * (0.1 * observation - self.action)
            return self.action, None

    (episode,) = record_rollout(Filter(), Monitor(CountingEnv()), n_eval_episodes=1).episodes
    np.testing.assert_allclose(episode.actions, [[0], [0.05], [0.125]])


def test_with_a_monitor_only_its_word_ends_an_episode():
    """As of Atari, where a lost life is an end to the agent alone."""

    class LosesLives(gym.Wrapper):
        is_over = True

        def reset(self, **kwargs):
            return super().reset(**kwargs) if self.is_over else (self.unwrapped._observation(), {})

        def step(self, action):
            observation, reward, self.is_over, truncated, info = super().step(action)
            return observation, reward, True, truncated, info

    recorded = record_rollout(TenthOfObservation(), LosesLives(Monitor(CountingEnv())), n_eval_episodes=2)
    assert [len(episode.actions) for episode in recorded.episodes] == [3, 4]
    np.testing.assert_array_equal(recorded.episodes[1].observations, [[0], [1], [2], [3]])
    assert recorded.smoothness()["length"].tolist() == [3, 4]


def test_episodes_of_several_environments_do_not_mix():
    """SB3 deals the episodes out to the environments; each of them counts on its own."""
    recorded = record_rollout(TenthOfObservation(), make_vec_env(CountingEnv, n_envs=3), n_eval_episodes=5)
    assert sorted(episode.length for episode in recorded.episodes) == [3, 3, 3, 4, 4]
    for episode in recorded.episodes:
        np.testing.assert_array_equal(episode.observations[:, 0], np.arange(episode.length))
        assert len(episode.actions) == len(episode.rewards) == episode.length


def test_without_a_monitor_the_vector_environment_is_believed_with_the_warning_of_sb3():
    with pytest.warns(UserWarning, match="Monitor"):
        episodes = record_rollout(TenthOfObservation(), CountingEnv(), n_eval_episodes=1).episodes
    assert episodes[0].length == 3
    assert episodes[0].total_reward == pytest.approx(0.3)


def test_dict_observations_are_kept_key_by_key():
    class DictEnv(CountingEnv):
        observation_space = spaces.Dict(count=spaces.Box(0, 100, (1,), np.float32), parity=spaces.Discrete(2))

        def _observation(self):
            return {"count": np.array([self.steps], np.float32), "parity": self.steps % 2}

    class FromCount(TenthOfObservation):
        def predict(self, observation, **kwargs):
            return super().predict(observation["count"], **kwargs)

    episodes = record_rollout(FromCount(), Monitor(DictEnv()), n_eval_episodes=2).episodes
    np.testing.assert_array_equal(episodes[0].observations["parity"], [0, 1, 0])
    assert stack_observations(episodes)["count"][:, 0].tolist() == [0, 1, 2, 0, 1, 2, 3]


@pytest.mark.parametrize("n_envs", [1, 2])
def test_returns_and_lengths_are_those_of_evaluate_policy(sac, n_envs):
    env = make_vec_env("Pendulum-v1", n_envs=n_envs)
    env.seed(3)
    returns, lengths = evaluate_policy(sac, env, n_eval_episodes=3, return_episode_rewards=True)
    measured = record_rollout(sac, env, n_eval_episodes=3, seed=3).smoothness()
    np.testing.assert_array_equal(measured["return"], returns)
    np.testing.assert_array_equal(measured["length"], lengths)


def test_actions_are_in_the_scale_of_the_environment(sac):
    recorded = record_rollout(sac, Monitor(gym.make("Pendulum-v1")), n_eval_episodes=1, seed=0)
    (episode,) = recorded.episodes
    np.testing.assert_allclose(sac.predict(episode.observations, deterministic=True)[0], episode.actions, atol=1e-6)
    assert recorded.smoothness()["sm"][0] == smoothness_score(episode.actions)
    share = high_frequency_share(episode.actions, 1.0, 20.0)
    assert recorded.smoothness(20.0, cutoff=1.0)["high_frequency_share"] == share
    assert share != recorded.smoothness(20.0)["high_frequency_share"]
    assert recorded.smoothness()["sm_scaled"][0] == pytest.approx(smoothness_score(episode.actions / 2))


@pytest.mark.parametrize("deterministic", [True, False])
def test_same_seed_same_episodes_and_torch_is_left_alone(sac, deterministic):
    env, episodes = make_vec_env("Pendulum-v1"), []
    for seed in (5, 5, 6):
        th.rand(1)  # whatever torch has drawn meanwhile
        state = th.random.get_rng_state()
        episodes += record_rollout(sac, env, 1, deterministic=deterministic, seed=seed).episodes
        assert th.equal(th.random.get_rng_state(), state)
    first, second, other = episodes
    np.testing.assert_array_equal(first.actions, second.actions)
    np.testing.assert_array_equal(first.observations, second.observations)
    assert not np.array_equal(first.actions, other.actions)


def noise_of(model):
    return (model.policy if isinstance(model, PPO) else model.actor).action_dist


@pytest.mark.parametrize("algorithm", [SAC, PPO])
def test_each_episode_has_a_noise_of_gsde_of_its_own_and_the_agent_gets_its_own_back(algorithm, tmp_path):
    env = DummyVecEnv([CountingEnv] * 2)
    model = algorithm("MlpPolicy", env, policy_kwargs={"net_arch": [8], "log_std_init": 0.0}, use_sde=True, device="cpu")
    model.save(tmp_path / "model")
    recorded, drawn = [], []

    def look(locals_, globals_):
        if locals_["i"] == 1:
            drawn.append(noise_of(agent).exploration_matrices.detach().clone())

    for agent in (model, algorithm.load(tmp_path / "model", device="cpu")):
        before = noise_of(agent).exploration_mat, noise_of(agent).exploration_matrices
        fresh = DummyVecEnv([CountingEnv] * 2)
        recorded.append(record_rollout(agent, fresh, 4, deterministic=False, seed=5, callback=look, warn=False))
        assert before == (noise_of(agent).exploration_mat, noise_of(agent).exploration_matrices)
    for first, second in zip(*(one.episodes for one in recorded), strict=True):
        np.testing.assert_array_equal(first.actions, second.actions)
    # Episodes end after the third step and the seventh
    rows = th.stack(drawn[:7]).flatten(2)
    assert [(rows[i] == rows[i + 1]).all(dim=1).tolist() for i in range(6)] == [[i not in (1, 5)] * 2 for i in range(6)]
    assert not th.equal(rows[0, 0], rows[0, 1])


def test_the_end_of_an_episode_draws_no_noise_of_gsde_for_another_environment():
    env = DummyVecEnv([CountingEnv] * 2)
    model = SAC("MlpPolicy", env, policy_kwargs={"net_arch": [8]}, use_sde=True, device="cpu")
    with drawn_for_each_episode(model, 2) as draw:
        before = model.actor.action_dist.exploration_matrices.clone()
        draw(1)
        after = model.actor.action_dist.exploration_matrices
        assert th.equal(before[0], after[0]) and not th.equal(before[1], after[1])


def test_normalised_observations_are_what_the_policy_saw_and_returns_are_raw():
    env = VecNormalize(make_vec_env("Pendulum-v1", seed=1), norm_reward=True)
    env.reset()
    env.action_space.seed(1)
    for _ in range(50):
        env.step(np.array([env.action_space.sample()]))
    env.training = False
    model = PPO("MlpPolicy", env, n_steps=8, batch_size=8, device="cpu", seed=0)
    episode = record_rollout(model, env, n_eval_episodes=1, seed=0).episodes[0]
    # Pendulum's first observation with this seed, normalised by hand
    raw, _ = gym.make("Pendulum-v1").reset(seed=0)
    expected = (raw - env.obs_rms.mean) / np.sqrt(env.obs_rms.var + env.epsilon)
    np.testing.assert_allclose(episode.observations[0], expected, rtol=1e-5)
    assert episode.total_reward == pytest.approx(episode.rewards.sum(), rel=1e-4)
    assert env.norm_reward and env.ret_rms.var != pytest.approx(1.0)  # normalised rewards would be others


def test_the_callback_of_evaluate_policy_still_works(sac):
    seen = []
    record_rollout(sac, make_vec_env("Pendulum-v1"), 1, callback=lambda locals_, globals_: seen.append(locals_["done"]))
    assert len(seen) == 200 and seen[-1]


def test_observations_can_be_left_out():
    (episode,) = record_rollout(TenthOfObservation(), Monitor(CountingEnv()), 1, keep_observations=False).episodes
    assert isinstance(episode, Episode)
    assert episode.observations.size == 0 and len(episode.actions) == 3


@pytest.mark.parametrize(
    ("env_id", "n_eval_episodes", "message"), [("CartPole-v1", 1, "continuous"), ("Pendulum-v1", 0, "n_eval_episodes")]
)
def test_bad_input_is_refused_before_anything_runs(env_id, n_eval_episodes, message):
    env = DummyVecEnv([lambda: gym.make(env_id)])
    with pytest.raises(ValueError, match=message):
        record_rollout(TenthOfObservation(), env, n_eval_episodes=n_eval_episodes)
