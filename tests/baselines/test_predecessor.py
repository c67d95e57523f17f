"""The state before a transition is that of the same episode, or it is left out."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_pave.baselines.predecessor import DrawnSlots, Predecessor
from sb3_pave.baselines.transitions import transitions
from sb3_pave.method.successor import Successor
from tests.algorithms.environments import CountingEnv
from tests.algorithms.scenarios import HAS_N_STEPS

N_ENVS, BUFFER_SIZE = 3, 60


class DictCountingEnv(gym.ObservationWrapper):
    """Episode and step as two entries."""

    def __init__(self, env):
        super().__init__(env)
        part = spaces.Box(0, 1e6, (1,), np.float32)
        self.observation_space = spaces.Dict({"episode": part, "step": part})

    def observation(self, observation):
        return {"episode": observation[:1], "step": observation[1:]}


def environments(wrapper=lambda env: env, episode_length=5, terminates=False):
    """Episodes of different lengths, each environment with episode numbers of its own."""

    def make(rank):
        def env():
            counting = CountingEnv(episode_length + rank, terminates)
            counting.episode = 1000 * rank
            return wrapper(counting)

        return env

    return DummyVecEnv([make(rank) for rank in range(N_ENVS)])


def filled(env, steps, policy="MlpPolicy", **kwargs):
    settings = {"learning_starts": 10**6, "policy_kwargs": {"net_arch": [4]}, "seed": 0, **kwargs}
    return SAC(policy, env, buffer_size=BUFFER_SIZE, **settings).learn(steps)


def drawn(model, batch_size=500):
    """A batch as (episode, step), its predecessors likewise, which of them exist, and the rows that it was drawn from."""
    buffer = model.replay_buffer
    with DrawnSlots(buffer) as slots:
        state = np.random.get_state()[1].copy()
        batch = buffer.sample(batch_size, env=model._vec_normalize_env)
        after = np.random.get_state()[1].copy()
        predecessor = slots.predecessor()
        assert (np.random.get_state()[1] == after).all() and not (state == after).all()
    assert "_get_samples" not in vars(buffer)
    pairs = []
    for observations in (batch.observations, predecessor.observations):
        if isinstance(observations, dict):
            observations = th.cat([observations["episode"], observations["step"]], dim=1)
        if model._vec_normalize_env is not None:
            observations = th.as_tensor(model._vec_normalize_env.unnormalize_obs(observations.numpy())).round()
        pairs.append(observations.numpy())
    return *pairs, predecessor.exists.numpy() > 0, slots._slots[0]


MEMORY_OPTIMISED = {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}}
CASES = {
    "not full": (environments, 42, {}),
    "full": (environments, 200, {}),
    "terminal": (lambda: environments(terminates=True), 200, {}),
    "memory-optimised, not full": (environments, 42, MEMORY_OPTIMISED),
    "memory-optimised, full": (environments, 200, MEMORY_OPTIMISED),
    "Dict": (lambda: environments(DictCountingEnv), 200, {"policy": "MultiInputPolicy"}),
    "VecNormalize": (lambda: VecNormalize(environments(), clip_obs=1e9), 200, {}),
    "n-step": (environments, 200, {"n_steps": 3}),
}


@pytest.mark.parametrize("case", CASES)
def test_no_predecessor_is_of_another_episode_and_none_is_missed(case):
    if case == "n-step" and not HAS_N_STEPS:
        pytest.skip("this SB3 has no n-step returns")
    make_env, steps, kwargs = CASES[case]
    model = filled(make_env(), steps, **kwargs)
    buffer = model.replay_buffer
    assert buffer.full == (steps > BUFFER_SIZE) and (not buffer.full or buffer.pos != 0)
    states, previous, exists, rows = drawn(model)
    np.testing.assert_array_equal(previous[exists, 0], states[exists, 0])
    np.testing.assert_array_equal(previous[exists, 1], states[exists, 1] - 1)
    oldest = (buffer.pos + buffer.optimize_memory_usage) % buffer.buffer_size if buffer.full else 0
    np.testing.assert_array_equal(exists, (states[:, 1] > 0) & (rows != oldest))
    assert 0.4 < exists.mean() < 0.9
    # Rows and environments of all kinds were among them
    assert len(np.unique(states[:, 0] // 1000)) == N_ENVS and (rows == oldest).any() and (states[:, 1] == 0).any()


def test_a_reset_in_the_middle_of_an_episode_is_a_boundary():
    model = filled(environments(episode_length=50), 30)
    model.learn(30)  # resets the environments after ten steps of each
    states, previous, exists, _ = drawn(model)
    np.testing.assert_array_equal(previous[exists], states[exists] - [0, 1])
    np.testing.assert_array_equal(exists, states[:, 1] > 0)


def test_a_buffer_that_draws_in_its_own_way_is_refused():
    class OwnSample(ReplayBuffer):
        def sample(self, batch_size, env=None):
            return ReplayBuffer._get_samples(self, np.arange(batch_size), env)

    class OwnEnvironments(ReplayBuffer):
        def _get_samples(self, batch_inds, env=None):
            np.random.random()
            return super()._get_samples(batch_inds, env)

    with pytest.raises(RuntimeError, match=r"does not draw its batches through _get_samples"):
        drawn(filled(environments(), 42, replay_buffer_class=OwnSample), 5)
    with pytest.raises(RuntimeError, match="does not choose environments as SB3's"):
        drawn(filled(environments(), 42, replay_buffer_class=OwnEnvironments))
    # With one environment there is nothing to choose
    env = make_vec_env(lambda: CountingEnv(), 1)
    states, previous, exists, _ = drawn(filled(env, 42, replay_buffer_class=OwnEnvironments))
    np.testing.assert_array_equal(previous[exists], states[exists] - [0, 1])


def test_three_states_in_a_row_need_a_state_before_and_one_after():
    class Batch:
        observations, dones = th.zeros(4, 1), th.zeros(4, 1)

    has_next, has_previous = th.tensor([1.0, 1.0, 0.0, 0.0]), th.tensor([1.0, 0.0, 1.0, 0.0])
    made = transitions(Batch, Successor(th.zeros(4, 1), has_next), Predecessor(th.zeros(4, 1), has_previous))
    assert made.has_both.tolist() == [1.0, 0.0, 0.0, 0.0]


class WithGoal(gym.ObservationWrapper):
    """Episode and step, and what is the same in every episode."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = spaces.Box(0, 1e6, (3,), np.float32)

    def observation(self, observation):
        return np.append(observation, np.float32(7))


def test_a_reset_to_a_state_that_shares_a_dimension_with_the_one_before_is_a_boundary():
    model = filled(environments(WithGoal, episode_length=50), 30)
    model.learn(30)  # resets the environments after ten steps of each
    states, previous, exists, _ = drawn(model)
    np.testing.assert_array_equal(previous[exists], states[exists] - [0, 1, 0])
    np.testing.assert_array_equal(exists, states[:, 1] > 0)
