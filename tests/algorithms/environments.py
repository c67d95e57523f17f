"""Small environments with chosen observation spaces."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class RandomObservationEnv(gym.Env):
    """
    Observations drawn at random from any space; the reward asks for small actions.

    :param observation_space: what is observed
    :param episode_length: steps until truncation
    :param termination: steps until termination, if before it
    """

    def __init__(self, observation_space: spaces.Space, episode_length: int = 10, termination: int | None = None):
        self.observation_space = observation_space
        self.action_space = spaces.Box(-2, 2, (2,), np.float32)
        self.episode_length = episode_length
        self.termination = termination
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        truncated = self.steps >= self.episode_length
        return self.observation_space.sample(), -float(np.abs(action).sum()), self.steps == self.termination, truncated, {}


class CountingEnv(gym.Env):
    """
    Observes ``[episode, step]``, so that a stored pair of observations tells whether one follows the other
    (``is_one_step``).

    :param episode_length: steps until the episode ends
    :param terminates: whether it ends by termination rather than truncation
    """

    def __init__(self, episode_length: int = 4, terminates: bool = False):
        self.observation_space = spaces.Box(0, 1e6, (2,), np.float32)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)
        self.episode_length = episode_length
        self.terminates = terminates
        self.episode, self.steps = -1, 0

    def _observe(self):
        return np.array([self.episode, self.steps], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode += 1
        self.steps = 0
        return self._observe(), {}

    def step(self, action):
        self.steps += 1
        over = self.steps >= self.episode_length
        return self._observe(), 0.0, over and self.terminates, over and not self.terminates, {}


def is_one_step(observations, successors):
    """Which of ``CountingEnv``'s observations are followed by the other ones, shape (batch,)."""
    return (successors[:, 0] == observations[:, 0]) & (successors[:, 1] == observations[:, 1] + 1)
