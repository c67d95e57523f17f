"""
Hindsight experience replay on a goal environment.

    python examples/goal_environment.py [timesteps]
"""

import sys

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer

from sb3_pave import PAVE_SAC


class ReachEnv(gym.Env):
    """Move a point in the plane to a goal; the reward is 0 within 0.1 of it and -1 elsewhere."""

    def __init__(self):
        box = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = spaces.Dict(observation=box, achieved_goal=box, desired_goal=box)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.position = self.goal = np.zeros(2, np.float32)
        self.steps = 0

    def _observe(self):
        return {"observation": self.position, "achieved_goal": self.position, "desired_goal": self.goal}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.goal = self.np_random.uniform(-1, 1, (2, 2)).astype(np.float32)
        self.steps = 0
        return self._observe(), {}

    def step(self, action):
        self.position = np.clip(self.position + 0.2 * action, -1, 1).astype(np.float32)
        self.steps += 1
        reward = float(self.compute_reward(self.position, self.goal, {}))
        return self._observe(), reward, False, self.steps >= 20, {"is_success": reward == 0}

    def compute_reward(self, achieved_goal, desired_goal, info):
        return -(np.linalg.norm(achieved_goal - desired_goal, axis=-1) > 0.1).astype(np.float32)


def main(timesteps: int = 4_000) -> None:
    model = PAVE_SAC(
        "MultiInputPolicy",
        ReachEnv(),
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs={"n_sampled_goal": 4, "goal_selection_strategy": "future"},
        policy_kwargs={"net_arch": [64, 64]},
        learning_rate=1e-3,
        gamma=0.95,
        seed=0,
        verbose=1,
    )
    model.learn(timesteps)
    print(f"Success rate {np.mean(model.ep_success_buffer):.0%}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
