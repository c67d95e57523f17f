"""Agents to export, and onnxruntime to run what was exported."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO, SAC
from stable_baselines3.sac.policies import SACPolicy
from torch import nn

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


class SpaceEnv(gym.Env):
    """An environment of given spaces, whose observations are draws of them."""

    def __init__(self, observation_space, action_space=None):
        self.observation_space = observation_space
        self.action_space = action_space or spaces.Box(np.float32([-2, 0]), np.float32([2, 10]))

    def reset(self, seed=None, options=None):
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


def make(algorithm, env, policy="MlpPolicy", net_arch=(16, 16), factor=3.0, **more):
    """A model with larger actions than a fresh network's, up to the bounds."""
    kwargs = {"buffer_size": 10} if algorithm is not PPO else {"n_steps": 8, "batch_size": 8}
    policy_kwargs = {"net_arch": list(net_arch), "activation_fn": nn.SiLU, **more}
    model = algorithm(policy, env, policy_kwargs=policy_kwargs, seed=0, device="cpu", **kwargs)
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.mul_(factor)
    return model


def scaling(size):
    """A SAC whose policy scales its observation where the graph does not see it: its graph is wrong."""

    class ScalingPolicy(SACPolicy):
        def _predict(self, observation, deterministic=False):
            return super()._predict(observation * size, deterministic)

    def algorithm(policy, env, **kwargs):
        return SAC(ScalingPolicy, env, **kwargs)

    return algorithm


def run(path, output="action", **inputs):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run([output], inputs)[0]
