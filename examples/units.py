"""
Pendulum-v1 in other units: the same task, whose rewards or angular velocity are multiplied.

``PendulumRewards0.01-v0`` has a hundredth of the rewards, ``PendulumVelocity100-v0`` a hundred times the angular velocity in
the observation, and so on. For a grid: ``gym_packages: [examples.units]``, from the folder above.
"""

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.pendulum import PendulumEnv

FACTORS = (0.01, 100)


class OtherUnits(gym.Wrapper):
    """
    Pendulum in other units.

    :param rewards: what rewards are multiplied by
    :param velocity: what the angular velocity in the observation is multiplied by
    """

    def __init__(self, rewards: float = 1.0, velocity: float = 1.0, **kwargs):
        super().__init__(gym.wrappers.TimeLimit(PendulumEnv(**kwargs), 200))
        self.rewards = rewards
        self.units = np.array([1, 1, velocity], np.float32)
        high = self.env.observation_space.high * self.units
        self.observation_space = spaces.Box(-high, high, dtype=np.float32)

    def reset(self, **kwargs):
        observation, info = self.env.reset(**kwargs)
        return observation * self.units, info

    def step(self, action):
        observation, reward, *rest = self.env.step(action)
        return observation * self.units, float(self.rewards * reward), *rest


for factor in FACTORS:
    gym.register(f"PendulumRewards{factor}-v0", OtherUnits, kwargs={"rewards": factor})
    gym.register(f"PendulumVelocity{factor}-v0", OtherUnits, kwargs={"velocity": factor})
