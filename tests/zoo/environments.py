"""Environments that tests hand to the zoo with ``--gym-packages tests.zoo.environments``."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class BrokenReward(gym.Env):
    """An environment whose rewards are not numbers."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), float("nan"), False, False, {}


class Reach(gym.Env):
    """A goal environment on a line, shaped like the Fetch environments."""

    def __init__(self, render_mode=None):
        box = spaces.Box(-1.0, 1.0, (1,), np.float64)
        self.observation_space = spaces.Dict({"observation": box, "achieved_goal": box, "desired_goal": box})
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.goal = self.np_random.uniform(-1.0, 1.0, (2, 1))
        return self._observation(), {}

    def step(self, action):
        self.position = np.clip(self.position + 0.2 * action, -1.0, 1.0)
        reward = self.compute_reward(self.position, self.goal, {})
        return self._observation(), float(reward), False, False, {"is_success": reward == 0.0}

    def compute_reward(self, achieved_goal, desired_goal, info):
        return -(np.abs(achieved_goal - desired_goal) > 0.1).astype(float).squeeze(-1)

    def _observation(self):
        return {
            "observation": self.position.copy(),
            "achieved_goal": self.position.copy(),
            "desired_goal": self.goal.copy(),
        }


# Gymnasium's checker would warn of the rewards
gym.register("BrokenReward-v0", entry_point=BrokenReward, max_episode_steps=50, disable_env_checker=True)
# Under the name that has an entry with HER in the zoo's sac.yml
gym.register("FetchReach-v1", entry_point=Reach, max_episode_steps=50)
