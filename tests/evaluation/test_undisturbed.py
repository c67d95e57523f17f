"""Measuring leaves the agent, its normalisation and every random state as they were, and measures what does not move."""

import inspect
import warnings
from copy import deepcopy

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO, SAC, TD3, HerReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.monitor import Monitor, load_results
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecMonitor, VecNormalize
from torch import nn

from sb3_pave.callbacks import SmoothnessEvalCallback
from sb3_pave.evaluation import (
    actor_jacobian_norm,
    critic_geometry,
    critic_values,
    evaluate_robustness,
    field_surface,
    observation_scale,
    record_rollout,
    rollout_geometry,
    surface_plane,
)
from sb3_pave.evaluation.undisturbed import end_last_episode


class Counting(gym.Env):
    """Observes how many steps it has made of its five, and where it began: drawn from its generator."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.start = 0, self.np_random.uniform()
        return np.array([0, self.start], np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.array([self.steps, self.start], np.float32), 100.0 + self.steps, self.steps == 5, False, {}


def agent(env, algorithm=SAC, **kwargs):
    policy_kwargs = {"net_arch": [8], "activation_fn": nn.SiLU}
    return algorithm("MlpPolicy", env, policy_kwargs=policy_kwargs, seed=0, device="cpu", **kwargs)


def training_normalization(**kwargs):
    """Statistics after some steps only, and still trained: every further step moves them."""
    env = VecNormalize(make_vec_env("Pendulum-v1", seed=3), **kwargs)
    env.reset()
    for action in np.linspace(-2, 2, 20):
        env.step(np.array([[action]]))
    return env


def frozen(env):
    """The same statistics over environments of its own."""
    other = VecNormalize(make_vec_env("Pendulum-v1"), training=False, norm_reward=False)
    other.obs_rms, other.ret_rms = deepcopy(env.obs_rms), deepcopy(env.ret_rms)
    return other


def state_of(env):
    statistics = {name: vars(one).copy() for name, one in (("obs", env.obs_rms), ("ret", env.ret_rms))}
    return deepcopy((statistics, env.training, env.norm_reward, env.returns, env.old_obs, env.old_reward))


MEASUREMENTS = {
    "record_rollout": lambda model, env: record_rollout(model, env, 1, seed=0).episodes[0].actions,
    "observation_scale": lambda model, env: observation_scale(model, env, 1, seed=0),
    "evaluate_robustness": lambda model, env: [
        rollout.episodes[0].actions for rollout in evaluate_robustness(model, env, [0.1, 0.0], n_eval_episodes=1).values()
    ],
}


@pytest.mark.parametrize("measure", MEASUREMENTS.values(), ids=MEASUREMENTS)
def test_a_normalisation_that_still_trains_is_frozen_and_put_back(measure):
    env = training_normalization()
    model = agent(env)
    before = state_of(env)
    measured = measure(model, model.get_env())
    np.testing.assert_equal(state_of(env), before)
    np.testing.assert_array_equal(measured, measure(model, frozen(env)))
    np.testing.assert_array_equal(measured, measure(model, model.get_env()))  # the same seed twice


def test_numbers_do_not_depend_on_the_order_of_noise_levels():
    model = agent(training_normalization())
    up, down = (
        evaluate_robustness(model, model.get_env(), levels, n_eval_episodes=1, seed=1) for levels in ([0.0, 0.5], [0.5, 0.0])
    )
    for level in (0.0, 0.5):
        np.testing.assert_array_equal(up[level].smoothness()["sm"], down[level].smoothness()["sm"])


@pytest.mark.parametrize("measure", MEASUREMENTS.values(), ids=MEASUREMENTS)
def test_an_exception_leaves_nothing_frozen(measure):
    env = training_normalization()
    before = state_of(env)

    class Broken:
        def predict(self, *args, **kwargs):
            raise RuntimeError("broken policy")

    with pytest.raises(RuntimeError, match="broken policy"):
        measure(Broken(), env)
    np.testing.assert_equal(state_of(env), before)


@pytest.mark.filterwarnings("ignore:Evaluation environment is not wrapped")
def test_returns_are_those_of_the_environment_also_without_a_monitor():
    """100 + 1 to 100 + 5 in each episode, whatever the caller's VecNormalize does to rewards."""
    env = VecNormalize(DummyVecEnv([Counting]))
    (episode,) = record_rollout(agent(env), env, 1, seed=0).episodes
    assert episode.total_reward == 515.0
    np.testing.assert_array_equal(episode.rewards, [101, 102, 103, 104, 105])
    assert env.norm_reward and env.training


def test_gymnasiums_own_normalisation_is_frozen_too():
    def make():
        return gym.wrappers.NormalizeReward(gym.wrappers.NormalizeObservation(Monitor(gym.make("Pendulum-v1"))))

    env = DummyVecEnv([make])
    env.seed(0)
    env.reset()
    for action in np.linspace(-2, 2, 20):
        env.step(np.array([[action]]))
    rewards, observations = env.envs[0], env.envs[0].env
    before = deepcopy((vars(rewards.return_rms), rewards.discounted_reward, vars(observations.obs_rms)))
    model = agent(env)
    first, second = (record_rollout(model, env, 1, seed=0).episodes[0] for _ in range(2))
    np.testing.assert_array_equal(first.observations, second.observations)
    np.testing.assert_equal((vars(rewards.return_rms), rewards.discounted_reward, vars(observations.obs_rms)), before)
    assert rewards.update_running_mean and observations.update_running_mean


@pytest.mark.skipif(not hasattr(VecEnv, "has_attr"), reason="before SB3 2.6 other processes can't be asked")
def test_gymnasiums_normalisation_in_another_process_is_out_of_reach_and_said():
    def make():
        return gym.wrappers.NormalizeObservation(Monitor(gym.make("Pendulum-v1")))

    env = SubprocVecEnv([make])
    try:
        with pytest.warns(UserWarning, match="out of reach"):
            record_rollout(agent(DummyVecEnv([make])), env, 1, seed=0)
        env.set_attr("update_running_mean", False)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            record_rollout(agent(DummyVecEnv([make])), env, 1, seed=0)
    finally:
        env.close()


def normalised_agent():
    """CrossQ's critics have batch normalisation, whose statistics move in training mode; so does dropout's mask."""
    contrib = pytest.importorskip("sb3_contrib")
    model = agent("Pendulum-v1", contrib.CrossQ, learning_starts=10)
    model.learn(30)
    model.policy.set_training_mode(True)
    return model


def test_modes_parameters_statistics_and_gradients_of_networks_are_left_as_they_were():
    model = normalised_agent()
    modes = {name: module.training for name, module in model.policy.named_modules()}
    state = {name: value.clone() for name, value in model.policy.state_dict().items()}
    gradients = {name: None if p.grad is None else p.grad.clone() for name, p in model.policy.named_parameters()}
    assert model.critic.training
    torch_state, numpy_state = th.random.get_rng_state(), np.random.get_state()[1].copy()

    env = make_vec_env("Pendulum-v1")
    recorded = record_rollout(model, env, 1, seed=0)
    rollout_geometry(model, recorded)
    field_surface(model, surface_plane(model, recorded, grid_size=3))
    observations, actions = recorded.episodes[0].observations[:5], recorded.episodes[0].actions[:5]
    actor_jacobian_norm(model, observations)
    critic_geometry(model, observations, actions)
    critic_values(model.critic, th.as_tensor(observations), th.as_tensor(actions / 2))
    record_rollout(model, env, 1, deterministic=False, seed=0)
    with th.no_grad():  # the caller's mode costs no derivative either
        assert rollout_geometry(model, recorded).summary() == rollout_geometry(model, recorded).summary()
        assert rollout_geometry(model, recorded).critic.mixed_norm.any()

    assert {name: module.training for name, module in model.policy.named_modules()} == modes
    for name, value in model.policy.state_dict().items():
        assert th.equal(value, state[name]), name
    for name, parameter in model.policy.named_parameters():
        assert (parameter.grad is None) == (gradients[name] is None)
        assert parameter.grad is None or th.equal(parameter.grad, gradients[name])
    assert th.equal(th.random.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)


def test_critic_values_are_those_of_evaluation_mode():
    model = normalised_agent()
    observations, actions = th.randn(6, 3), th.rand(6, 1)
    values = critic_values(model.critic, observations, actions)
    model.policy.set_training_mode(False)
    th.testing.assert_close(values, critic_values(model.critic, observations, actions))
    th.testing.assert_close(values[0, 2:3], critic_values(model.critic, observations[2:3], actions[2:3])[0])


def test_the_random_state_of_the_environments_is_put_back_after_a_seed():
    env = make_vec_env(Counting, n_envs=2, seed=8)
    env.reset()
    expected = deepcopy(env.get_attr("np_random"))
    model = agent(env)
    record_rollout(model, env, 2, seed=1)
    evaluate_robustness(model, env, [0.1], n_eval_episodes=2, seed=1)
    env._reset_seeds()  # that of the agent's own seed
    starts = env.reset()[:, 1]
    np.testing.assert_allclose(starts, [one.uniform() for one in expected], rtol=1e-6)
    # Without a seed the environments go on: two measurements see different episodes
    first, second = (record_rollout(model, env, 2).episodes[0].observations for _ in range(2))
    assert first[0, 1] != second[0, 1]


class OwnGenerator(Counting):
    """Without the setter that Gymnasium's environments have."""

    own = np.random.default_rng(0)

    @property
    def np_random(self):
        return self.own

    def reset(self, seed=None, options=None):
        if seed is not None:
            self.own = np.random.default_rng(seed)
        self.steps, self.start = 0, self.np_random.uniform()
        return np.array([0, self.start], np.float32), {}


class OlderGenerator(Counting):
    """As dm_control's."""

    def reset(self, seed=None, options=None):
        if seed is not None:
            self.np_random = np.random.RandomState(seed)
        self.steps, self.start = 0, self.np_random.uniform()
        return np.array([0, self.start], np.float32), {}


@pytest.mark.parametrize("kind", [OwnGenerator, OlderGenerator])
def test_generators_of_other_kinds_are_put_back(kind):
    env = make_vec_env(kind, seed=8)
    env.reset()
    (expected,) = deepcopy(env.get_attr("np_random"))
    record_rollout(agent(env), env, 2, seed=1)
    env._reset_seeds()
    assert env.reset()[0, 1] == np.float32(expected.uniform())


@pytest.mark.parametrize("normalize", [False, True])
def test_an_agent_measured_before_it_trains_learns_the_same(normalize):
    def learned(measured):
        env = make_vec_env("Pendulum-v1")
        env = VecNormalize(env) if normalize else env
        model = agent(env, learning_starts=10)
        if measured:
            rollout = record_rollout(model, model.get_env(), 1, seed=5)
            evaluate_robustness(model, model.get_env(), [0.1], n_eval_episodes=1, deterministic=False)
            rollout_geometry(model, rollout)
        return model.learn(40).policy.state_dict()

    plain, watched = learned(False), learned(True)
    for name, value in plain.items():
        assert th.equal(value, watched[name]), name


@pytest.mark.parametrize("given", ["model.get_env()", "the environment inside"])
def test_an_agent_that_learns_on_after_it_was_measured_in_its_own_environment_sees_no_transition_that_was_none(given):
    """Each stored transition is one step of one episode: the measurement's resets don't come in between."""
    env = Monitor(Counting())
    model = agent(env, learning_starts=100, buffer_size=50)
    model.learn(8)
    record_rollout(model, model.get_env() if given == "model.get_env()" else env, 1, seed=0)
    model.learn(8, reset_num_timesteps=False)
    observations, successors = (x[:16, 0] for x in (model.replay_buffer.observations, model.replay_buffer.next_observations))
    np.testing.assert_allclose(successors - observations, np.tile([1.0, 0.0], (16, 1)), atol=1e-6)
    assert observations[8, 0] == 0.0  # a new episode
    # Five steps an episode, then the three that were cut off: truncated, not terminal
    assert np.flatnonzero(model.replay_buffer.dones[:16, 0]).tolist() == [4, 7, 12]
    np.testing.assert_array_equal(model.replay_buffer.timeouts[:16, 0], [0, 0, 0, 0, 0, 0, 0, 1, *[0] * 8])


@pytest.mark.parametrize(
    "how", [{"n_steps": 3}, {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}}]
)
def test_what_was_cut_off_is_not_joined_to_what_follows(how):
    if not set(how) <= set(inspect.signature(SAC).parameters):
        pytest.skip("n_steps needs Stable-Baselines3 2.7")
    model = agent(make_vec_env(Counting), learning_starts=100, buffer_size=50, **how)
    model.learn(8)
    record_rollout(model, model.get_env(), 1, seed=0)
    model.learn(8, reset_num_timesteps=False)
    batch = model.replay_buffer._get_samples(np.array([6, 7, 8]))
    # Rewards of an episode are 101, 102, 103, ...; its third step is the seventh of the buffer
    if "n_steps" in how:
        expected = [102 + 0.99 * 103, 103, 101 + 0.99 * 102 + 0.99**2 * 103]
        np.testing.assert_allclose(batch.rewards.flatten(), expected, rtol=1e-6)
        assert batch.next_observations[:2, 0].tolist() == [3.0, 3.0]
    assert batch.dones.flatten().tolist() == ([0, 0, 0] if "n_steps" in how else [0, 1, 0])


def test_goals_of_hindsight_are_those_of_the_episode_that_was_cut_off():
    env = Monitor(BitFlippingEnv(n_bits=20, continuous=True, max_steps=10))
    model = SAC("MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer, device="cpu", seed=0, buffer_size=100)
    model.learn(6)
    record_rollout(model, model.get_env(), 1, seed=0)
    model.learn(6, reset_num_timesteps=False)
    lengths = model.replay_buffer.ep_length[:6, 0]
    assert lengths.tolist() == [6] * 6


@pytest.mark.parametrize("monitored", ["each environment", "all together"])
def test_training_episodes_alone_are_in_monitor_csv(tmp_path, monitored):
    if monitored == "each environment":
        env = make_vec_env(Counting, n_envs=2, monitor_dir=str(tmp_path))
        monitors = env.envs
    else:
        env = VecMonitor(DummyVecEnv([Counting, Counting]), str(tmp_path / "both"))
        monitors = [env]

    def counts():
        names = ("episode_count", "total_steps")
        return [([getattr(one, name, None) for name in names], list(one.episode_lengths)) for one in monitors]

    model = agent(env, learning_starts=100, buffer_size=50)
    model.learn(22)
    before = counts()
    record_rollout(model, model.get_env(), 4, seed=0)
    assert counts() == before
    assert len(load_results(str(tmp_path))) == 4
    model.learn(20, reset_num_timesteps=False)
    assert len(load_results(str(tmp_path))) == 8
    env.close()


def test_an_environment_for_measuring_has_its_own_monitor_csv(tmp_path):
    model = agent(make_vec_env(Counting))
    env = make_vec_env(Counting, monitor_dir=str(tmp_path))
    record_rollout(model, env, 3, seed=0)
    assert len(load_results(str(tmp_path))) == 3
    env.close()


def test_an_agent_measured_in_another_environment_goes_on_in_its_own():
    model = agent(make_vec_env(Counting), learning_starts=100, buffer_size=50)
    model.learn(8)
    record_rollout(model, make_vec_env(Counting), 1, seed=0)
    model.learn(8, reset_num_timesteps=False)
    assert model.replay_buffer.observations[8, 0, 0] == 3.0


def test_the_callback_freezes_the_environment_it_evaluates_in_and_no_longer():
    """Statistics are synchronised from training at each evaluation, and stay what they were then."""
    seen = []

    class Look(BaseCallback):
        def _on_step(self):
            seen.append((self.parent.eval_env.training, self.parent.eval_env.norm_reward))
            return True

    env, evaluation = VecNormalize(make_vec_env("Pendulum-v1")), VecNormalize(make_vec_env("Pendulum-v1"))
    callback = SmoothnessEvalCallback(
        evaluation, eval_freq=40, n_eval_episodes=1, verbose=0, geometry_interval=1, callback_on_new_best=Look()
    )
    agent(env, learning_starts=100).learn(40, callback=callback)
    assert evaluation.training and evaluation.norm_reward and seen == [(True, True)]
    np.testing.assert_equal(vars(evaluation.obs_rms), vars(env.obs_rms))


@pytest.mark.parametrize(("algorithm", "more"), [(SAC, {"learning_starts": 10}), (PPO, {"n_steps": 20, "batch_size": 20})])
@pytest.mark.parametrize("deterministic", [True, False])
def test_training_is_the_same_with_and_without_the_callback(algorithm, more, deterministic):
    def learned(callback):
        return agent(make_vec_env("Pendulum-v1"), algorithm, **more).learn(60, callback=callback).policy.state_dict()

    callback = SmoothnessEvalCallback(
        make_vec_env("Pendulum-v1"),
        eval_freq=20,
        n_eval_episodes=1,
        deterministic=deterministic,
        geometry_interval=1,
        verbose=0,
    )
    plain, watched = learned(None), learned(callback)
    for name, value in plain.items():
        assert th.equal(value, watched[name]), name


@pytest.mark.parametrize("given", ["get_env", "the environment inside"])
def test_the_callback_refuses_the_environment_of_training(given):
    env = Monitor(gym.make("Pendulum-v1"))
    model = agent(env, TD3)
    callback = SmoothnessEvalCallback(model.get_env() if given == "get_env" else env, eval_freq=10, verbose=0)
    with pytest.raises(ValueError, match="the environment that the agent trains in"):
        model.learn(20, callback=callback)


def test_an_episode_that_had_ended_by_itself_was_not_cut_off():
    buffer = TD3("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, buffer_size=10, device="cpu").replay_buffer
    buffer.add(np.zeros(3), np.zeros(3), np.zeros(1), np.zeros(1), done=np.ones(1), infos=[{}])
    end_last_episode(buffer)
    assert (buffer.dones[0, 0], buffer.timeouts[0, 0]) == (1, 0)


def test_a_seed_that_waits_for_the_next_reset_is_kept():
    env, expected = make_vec_env("Pendulum-v1", seed=8), make_vec_env("Pendulum-v1", seed=8).reset()
    record_rollout(TD3("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, buffer_size=10), env, 1, seed=1)
    np.testing.assert_array_equal(env.reset(), expected)
