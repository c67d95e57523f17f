"""Small agents on a CUDA device, and environments without dependencies to fill their buffers from."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces

import sb3_pave


class Walk(gym.Env):
    """Random observations of any space, and rewards that depend on the action."""

    def __init__(self, observation_space: spaces.Space | None = None):
        self.observation_space = observation_space or spaces.Box(-1, 1, (5,), np.float32)
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        ends = self.np_random.random() < 0.05
        return self.observation_space.sample(), float(1 - np.square(action).sum()), ends, False, {}


IMAGES = spaces.Box(0, 255, (36, 36, 1), np.uint8)
MIXED = spaces.Dict({"vector": spaces.Box(-1, 1, (4,), np.float32), "kind": spaces.Discrete(3)})
SETTINGS = {"learning_starts": 100, "buffer_size": 400, "batch_size": 64, "seed": 0, "device": "cuda"}
NETWORKS = {"net_arch": [32, 32]}


def make(
    name: str, space: spaces.Space | None = None, policy: str = "MlpPolicy", module: Any = sb3_pave, **kwargs: Any
) -> Any:
    """
    An agent with a hundred transitions, not trained yet.

    :param name: of its class
    :param space: of its observations
    :param policy: its policy
    :param module: where the class is
    :param kwargs: further arguments
    """
    kwargs = {**SETTINGS, **kwargs, "policy_kwargs": {**NETWORKS, **kwargs.get("policy_kwargs", {})}}
    return getattr(module, name)(policy, Walk(space), **kwargs).learn(100)


def train(model: Any, calls: int = 12, updates: int = 5) -> Any:
    """Sixty updates from the same seeds, under a falling schedule if there is one."""
    th.manual_seed(1)
    np.random.seed(1)
    for done in range(calls):
        model._current_progress_remaining = 1 - done / calls
        model.train(updates, batch_size=model.batch_size)
    return model


def parameters(model: Any) -> th.Tensor:
    """Of all networks, and the learned entropy coefficient, in one tensor."""
    own = [model.log_ent_coef] if getattr(model, "log_ent_coef", None) is not None else []
    return th.cat([parameter.detach().flatten() for parameter in (*model.policy.parameters(), *own)])


def n_recordings(model: Any) -> int:
    """How many kinds of updates are replayed now."""
    return 0 if model._graphs is None else sum(r.replay is not None for r in model._graphs._recordings.values())
