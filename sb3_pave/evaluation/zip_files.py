"""Models saved by SB3 as zip files: which algorithm they are of, and loaded to be looked at."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import stable_baselines3 as sb3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file

from sb3_pave.evaluation.errors import AgentError


def load_model(path: str | os.PathLike, algorithm: type[BaseAlgorithm] | None = None, device: str = "auto") -> BaseAlgorithm:
    """
    Load a saved model to look at it, not to train it: its replay buffer holds a single transition.

    :param path: the zip file
    :param algorithm: its class; None takes :func:`algorithm_class`
    :param device: PyTorch device
    :return: the model
    :raises AgentError: if it does not load
    """
    algorithm = algorithm or algorithm_class(path)
    kwargs: dict[str, Any] = {}
    if issubclass(algorithm, OffPolicyAlgorithm):
        # A buffer of another class may need an environment (hindsight replay)
        kwargs.update(buffer_size=1, optimize_memory_usage=False, replay_buffer_class=None, replay_buffer_kwargs={})
    # Schedules are pickled functions: not needed here, and they may not unpickle on another Python
    unused = {"learning_rate": 0.0, "lr_schedule": _zero, "clip_range": _zero}
    try:
        return algorithm.load(Path(path), custom_objects=unused, device=device, **kwargs)
    except Exception as error:
        raise AgentError(f"{path} does not load as {algorithm.__name__}: {_why_not(path, algorithm) or error}") from error


def algorithm_class(path: str | os.PathLike) -> type[BaseAlgorithm]:
    """
    A class that loads a saved model. A zip file does not name its algorithm; its policy tells the family, and what is saved of
    its settings the member.

    :param path: the zip file
    :return: SAC, TD3, DDPG, PPO, A2C, or TQC, CrossQ, TRPO, ARS, RecurrentPPO if sb3-contrib is installed
    :raises AgentError: if the file is not a model of one of these
    """
    data = _zip_data(Path(path))
    policy_class = data.get("policy_class")
    for algorithm in _families():
        if isinstance(policy_class, type) and issubclass(policy_class, tuple(algorithm.policy_aliases.values())):
            return _member(algorithm, data)
    raise AgentError(f"{path}: a policy of {policy_class} is none of {', '.join(one.__name__ for one in _families())}")


def algorithm_name(path: str | os.PathLike) -> str:
    """
    :param path: the zip file
    :return: a name for its algorithm as in the zoo: ``sac``, ``pave_sac`` if it was trained with PAVE, ``caps_sac`` or
        ``caps_pave_sac`` if an actor-side method had part in it
    :raises AgentError: if the file is not a model of a known algorithm
    """
    name = algorithm_class(path).__name__.lower()
    name = "ppo_lstm" if name == "recurrentppo" else name
    data = _zip_data(Path(path))
    parts = (data.get("actor_side_method"), "pave" if "mpr_coef" in data else None, name)
    return "_".join(part for part in parts if part)


def _why_not(path: str | os.PathLike, algorithm: type[BaseAlgorithm]) -> str | None:
    """A sentence if a file is one of another algorithm, which the error of its loading does not say."""
    try:
        saved = algorithm_class(path)
    except AgentError:
        return None
    if issubclass(algorithm, saved) or issubclass(saved, algorithm):
        return None
    return f"it is a model of {saved.__name__} (without --algo, that is read from the file)"


def _families() -> list[type[BaseAlgorithm]]:
    """The first of them that has a policy's class is its family: the special ones come first."""
    try:
        from sb3_contrib import ARS, TQC, CrossQ, RecurrentPPO
    except ImportError:
        return [sb3.TD3, sb3.SAC, sb3.PPO]
    return [sb3.TD3, sb3.SAC, RecurrentPPO, sb3.PPO, TQC, CrossQ, ARS]


def _member(family: type[BaseAlgorithm], data: dict[str, Any]) -> type[BaseAlgorithm]:
    """Of algorithms that share their policies, the one that leaves these settings."""
    if family is sb3.TD3:
        # DDPG is TD3 without its tricks
        return sb3.DDPG if (data.get("policy_delay"), data.get("target_noise_clip")) == (1, 0.0) else sb3.TD3
    if family is sb3.PPO and "clip_range" not in data:
        if "cg_max_steps" in data:
            from sb3_contrib import TRPO

            return TRPO
        return sb3.A2C
    return family


def _zip_data(path: Path) -> dict[str, Any]:
    try:
        data, _, _ = load_from_zip_file(path, device="cpu", custom_objects={"lr_schedule": _zero, "clip_range": _zero})
    except Exception as error:
        raise AgentError(f"{path} is not a model saved by Stable-Baselines3: {error}") from error
    if data is None:
        raise AgentError(f"{path} holds no model, only parameters")
    return data


def _zero(_: float) -> float:
    return 0.0
