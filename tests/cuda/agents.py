"""Small agents, on a CUDA device unless told otherwise, environments without dependencies to fill their buffers from."""

import gc
import importlib.util
import weakref
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
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


contrib = pytest.mark.skipif(importlib.util.find_spec("sb3_contrib") is None, reason="needs sb3-contrib")
CASES = {
    "td3": ("PAVE_TD3", {}),
    "sac": ("PAVE_SAC", {}),
    "ddpg": ("PAVE_DDPG", {}),
    "tqc": ("PAVE_TQC", {}),
    "crossq": ("PAVE_CrossQ", {"policy_kwargs": {"batch_norm": False}}),
    "td3, delay 3": ("PAVE_TD3", {"policy_delay": 3}),
    "td3, n-step": ("PAVE_TD3", {"n_steps": 3}),
    "td3, memory-optimised": (
        "PAVE_TD3",
        {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}},
    ),
    "td3, part of the batch": ("PAVE_TD3", {"pave_batch_size": 16}),
    "td3, paper's units": ("PAVE_TD3", {"scale_free": False}),
    "td3, every third update": ("PAVE_TD3", {"pave_interval": 3}),
    "tqc, every second update": ("PAVE_TQC", {"pave_interval": 2}),
    "td3, AdamW": ("PAVE_TD3", {"policy_kwargs": {"optimizer_class": th.optim.AdamW}}),
    "td3, RMSprop": ("PAVE_TD3", {"policy_kwargs": {"optimizer_class": th.optim.RMSprop}}),
    "sac, gSDE": ("PAVE_SAC", {"use_sde": True}),
    "sac, fixed entropy": ("PAVE_SAC", {"ent_coef": 0.2}),
    "sac, targets every third": ("PAVE_SAC", {"target_update_interval": 3}),
    "sac, schedule": ("PAVE_SAC", {"learning_rate": lambda progress: 1e-3 * progress}),
    "sac, Dict": ("PAVE_SAC", {"space": MIXED, "policy": "MultiInputPolicy"}),
    "td3, images": ("PAVE_TD3", {"space": IMAGES, "policy": "CnnPolicy", "batch_size": 16, "buffer_size": 200}),
    "td3, no terms": ("PAVE_TD3", {"mpr_coef": 0, "vfc_coef": 0, "curv_coef": 0}),
    "sac, no terms": ("PAVE_SAC", {"mpr_coef": 0, "vfc_coef": 0, "curv_coef": 0}),
}


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


def assert_freed_with_its_buffer(make_agent: Callable[[], Any]) -> None:
    """What nobody keeps is gone at once: the garbage collector does not see how large replay buffers are."""
    agent = make_agent()
    buffer = weakref.ref(agent.replay_buffer)
    gc.collect()
    gc.disable()
    try:
        del agent
        assert buffer() is None
    finally:
        gc.enable()


def case(name):
    marks = [contrib] if name.startswith(("tqc", "crossq")) else []
    return pytest.param(name, marks=marks)


def assert_same_training(name, ours, theirs):
    difference = (parameters(ours) - parameters(theirs)).abs().max().item()
    print(f"[{name}] largest difference of a parameter {difference:.2e}")
    assert difference < (5e-5 if ours.compile else 5e-6)
    log = ours.logger.name_to_value
    assert log.keys() == theirs.logger.name_to_value.keys()
    for tag, value in theirs.logger.name_to_value.items():
        if tag.startswith("train/"):
            assert log[tag] == pytest.approx(value, rel=1e-3, abs=1e-4), tag
