"""
An environment of your own, with normalised observations, evaluation and checkpoints.

    python examples/own_environment.py [timesteps]
"""

import sys

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_pave import PAVE_SAC


class PointMass(gym.Env):
    """A mass on a line that a force brings to the origin. Observes position (m) and velocity (m/s), every 0.05 s."""

    def __init__(self):
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Box(-5.0, 5.0, (1,), np.float32)  # newtons
        self.state = np.zeros(2)
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.uniform([-2.0, -1.0], [2.0, 1.0])
        self.steps = 0
        return self.state.astype(np.float32), {}

    def step(self, action):
        position, velocity = self.state
        velocity += 0.05 * float(action[0])
        self.state = np.array([position + 0.05 * velocity, velocity])
        self.steps += 1
        reward = -(self.state[0] ** 2 + 0.1 * velocity**2)
        return self.state.astype(np.float32), float(reward), False, self.steps >= 100, {}


def main(timesteps: int = 5_000) -> None:
    env = VecNormalize(make_vec_env(PointMass, n_envs=2, seed=0))
    eval_env = VecNormalize(make_vec_env(PointMass, n_envs=1, seed=1), training=False, norm_reward=False)
    model = PAVE_SAC("MlpPolicy", env, gradient_steps=-1, learning_rate=1e-3, seed=0, verbose=1)
    callbacks = [
        EvalCallback(eval_env, eval_freq=max(timesteps // 10, 1), best_model_save_path="point_mass", verbose=0),
        CheckpointCallback(save_freq=max(timesteps // 4, 1), save_path="point_mass", save_vecnormalize=True),
    ]
    model.learn(timesteps, callback=callbacks)
    env.save("point_mass/vecnormalize.pkl")
    print(f"Last mean return {callbacks[0].last_mean_reward:.1f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
