"""PAVE_SAC solves a task, under the paper's protocol and with the defaults."""

import gymnasium as gym
import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_pave import PAVE_SAC


def test_pave_sac_swings_the_pendulum_up():
    model = PAVE_SAC(
        "MlpPolicy",
        "Pendulum-v1",
        learning_rate=1e-3,
        buffer_size=20_000,
        learning_starts=10_000,
        batch_size=100,
        train_freq=50,
        gradient_steps=50,
        ent_coef=0.2,
        seed=1,
    )
    model.learn(15_000)
    env = Monitor(gym.make("Pendulum-v1"))
    env.reset(seed=7)
    returns, lengths = evaluate_policy(model, env, n_eval_episodes=20, return_episode_rewards=True)
    assert lengths == [200] * 20
    assert np.mean(returns) > -250  # a random policy gets about -1200
