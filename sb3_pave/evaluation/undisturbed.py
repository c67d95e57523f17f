"""What a measurement borrows from an agent and its environments, given back as it was."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from copy import copy, deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecMonitor, VecNormalize
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer
from torch import nn

from sb3_pave.evaluation.networks import evaluation_mode
from sb3_pave.user_warning import warn_user

# What stepping and resetting changes in a VecNormalize whose statistics are frozen, and the two switches themselves
_OF_NORMALIZATION = ("training", "norm_reward", "returns", "old_obs", "old_reward")
_OF_GYMNASIUM = ("update_running_mean", "discounted_reward")
# What SB3's Monitor and VecMonitor keep of the episodes that have ended, and what writes them to a file
_OF_MONITORS = ("episode_returns", "episode_lengths", "episode_times", "total_steps", "episode_count", "results_writer")


@contextmanager
def undisturbed(model: Any, env: VecEnv, seeded: bool) -> Iterator[None]:
    """
    Run episodes inside without a trace: normalisation is frozen, networks are in evaluation mode, and a seed given to the
    environments is forgotten afterwards, also after an exception. Where the environments are those that the agent trains in,
    the agent's next ``learn()`` begins with a new episode; the one that was cut off counts as truncated. Their ``Monitor``
    keeps what it has counted, and its file what is written there (not in other processes).

    :param model: an algorithm, a policy or anything else with a ``predict`` method
    :param env: the environments
    :param seeded: whether the environments are given a seed inside
    """
    policy = getattr(model, "policy", model)
    trains_here = isinstance(model, BaseAlgorithm) and model.env is not None and share_environments(model.env, env)
    with (
        frozen_normalization(env),
        _kept_records(env) if trains_here else nullcontext(),
        evaluation_mode(policy) if isinstance(policy, nn.Module) else nullcontext(),
        _kept_random_state(env) if seeded else nullcontext(),
    ):
        try:
            yield
        finally:
            if trains_here:
                _begin_anew(model)


@contextmanager
def frozen_normalization(env: VecEnv) -> Iterator[None]:
    """
    Inside, no ``VecNormalize`` (nor a wrapper of Gymnasium that normalises) updates its statistics, and ``VecNormalize``
    leaves rewards as they are.

    :param env: the environments, as they will be run
    """
    with ExitStack() as stack:
        for wrapper in _wrappers(env):
            if isinstance(wrapper, VecNormalize):
                stack.enter_context(_restored(wrapper, _OF_NORMALIZATION))
                wrapper.training = wrapper.norm_reward = False
        innermost = _innermost(env)
        if not hasattr(innermost, "envs"):
            _warn_of_normalization_elsewhere(innermost)
        for one in _gymnasium_wrappers(env):
            if hasattr(type(one), "update_running_mean"):
                stack.enter_context(_restored(one, _OF_GYMNASIUM))
                one.update_running_mean = False  # type: ignore[attr-defined]
        yield


@contextmanager
def _kept_records(env: VecEnv) -> Iterator[None]:
    """Inside, what is said of training's episodes, in memory and in ``monitor.csv``, takes no note of others."""
    with ExitStack() as stack:
        for monitor in (*_wrappers(env), *_gymnasium_wrappers(env)):
            if isinstance(monitor, Monitor | VecMonitor):
                stack.enter_context(_restored(monitor, _OF_MONITORS))
                monitor.results_writer = None
        yield


def _warn_of_normalization_elsewhere(env: VecEnv) -> None:
    # To get what an environment lacks would end its process; before Stable-Baselines3 2.6 it can't be asked
    has_attr = getattr(env, "has_attr", lambda name: False)
    if has_attr("update_running_mean") and any(env.get_attr("update_running_mean")):
        warn_user(
            "Wrappers of Gymnasium normalise in other processes, out of reach: their statistics go on with what is measured. "
            "Measure in a DummyVecEnv, or freeze them by env.set_attr('update_running_mean', False).",
        )


@contextmanager
def kept_actions(env: VecEnv) -> Iterator[None]:
    """
    Inside, ``env.step`` hands on a copy: an environment that changes its action in place, to scale it for example, leaves the
    policy's as it was, as one in another process does.

    :param env: the environments, as they will be run
    """
    # Not by a wrapper: sync_envs_normalization compares those of two environments one by one
    step, own = env.step, {name: value for name, value in vars(env).items() if name == "step"}
    vars(env)["step"] = lambda actions: step(deepcopy(actions))
    try:
        yield
    finally:
        del vars(env)["step"]
        vars(env).update(own)


@contextmanager
def kept_torch_state() -> Iterator[None]:
    """Whatever is drawn or seeded inside, PyTorch's global generators go on from where they were, on every device."""
    with th.random.fork_rng(devices=range(th.cuda.device_count())):
        yield


def share_environments(first: VecEnv, second: VecEnv) -> bool:
    """
    :param first: environments
    :param second: environments
    :return: whether a reset of one of them resets an environment of the other
    """
    return bool(_environments(first) & _environments(second))


def _begin_anew(model: BaseAlgorithm) -> None:
    if model._last_obs is None:
        return
    model._last_obs = None  # what SB3's set_env does, too
    buffer = getattr(model, "replay_buffer", None)
    if isinstance(buffer, HerReplayBuffer):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SB3 warns that it does what it is asked for
            buffer.truncate_last_trajectory()
    elif isinstance(buffer, ReplayBuffer) and buffer.size() > 0:
        end_last_episode(buffer)


def end_last_episode(buffer: ReplayBuffer) -> None:
    """
    Another episode follows the last transition: n-step returns end there rather than run on into it.

    :param buffer: not an empty one
    """
    last = buffer.pos - 1
    if buffer.handle_timeout_termination:
        buffer.timeouts[last] = np.logical_or(buffer.timeouts[last], np.logical_not(buffer.dones[last]))
    buffer.dones[last] = True


@contextmanager
def _kept_random_state(env: VecEnv) -> Iterator[None]:
    """The generators of the environments, and the seeds that wait for their next reset (``model.set_random_seed``)."""
    innermost = _innermost(env)
    waiting = list(getattr(innermost, "_seeds", ()))
    try:
        generators = env.get_attr("np_random")
    except Exception:  # an environment without one, or whatever a vector environment of another make raises
        generators = []
    states = [_state(generator) for generator in generators]
    try:
        yield
    finally:
        if waiting:
            innermost._seeds = waiting
        for i, (generator, state) in enumerate(zip(generators, states, strict=True)):
            if state is None:
                continue
            _put_back(generator, state)
            try:
                env.set_attr("np_random", generator, indices=i)
            except AttributeError:  # a property without a setter: the generator that is there goes on from that state
                _put_back(env.get_attr("np_random", indices=i)[0], state)


def _state(generator: Any) -> Any:
    """Of NumPy's two kinds of generators; None of any other."""
    if isinstance(generator, np.random.Generator):
        return deepcopy(generator.bit_generator.state)
    return generator.get_state(legacy=False) if isinstance(generator, np.random.RandomState) else None


def _put_back(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        generator.bit_generator.state = state


@contextmanager
def _restored(wrapper: Any, names: tuple[str, ...]) -> Iterator[None]:
    # Not by hasattr alone: wrappers look for what they lack in the environment below
    kept = {name: copy(getattr(wrapper, name)) for name in names if name in vars(wrapper) or hasattr(type(wrapper), name)}
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(wrapper, name, value)


def _wrappers(env: VecEnv) -> Iterator[VecEnvWrapper]:
    while isinstance(env, VecEnvWrapper):
        yield env
        env = env.venv


def _gymnasium_wrappers(env: VecEnv) -> Iterator[gym.Wrapper]:
    for one in getattr(_innermost(env), "envs", ()):
        while isinstance(one, gym.Wrapper):
            yield one
            one = one.env


def _innermost(env: VecEnv) -> VecEnv:
    while isinstance(env, VecEnvWrapper):
        env = env.venv
    return env


def _environments(env: VecEnv) -> set[int]:
    innermost = _innermost(env)
    return {id(one.unwrapped) for one in getattr(innermost, "envs", ())} or {id(innermost)}
