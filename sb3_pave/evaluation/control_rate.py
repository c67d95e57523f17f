"""How many actions a second an environment takes."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv

from sb3_pave.evaluation.rollout import Episode


def control_rate(env: VecEnv) -> tuple[float, str | None]:
    """
    Actions a second of an environment that says how long its step is (``dt`` in seconds, as MuJoCo's and Pendulum do).

    :param env: the environment
    :return: the rate in Hz, 1 (frequencies in cycles a step) if the environment does not say or what it says is no duration;
        and a sentence about the latter case, else None
    :raises EOFError: if the process of an environment ends
    :raises ConnectionError: if it had ended before
    """
    can_be_asked = hasattr(env, "has_attr")  # since Stable-Baselines3 2.6
    if isinstance(env.unwrapped, SubprocVecEnv) and not can_be_asked:
        return 1.0, _note("can't be asked for in another process before Stable-Baselines3 2.6")
    try:
        # To get what it lacks would end the process of a SubprocVecEnv
        if can_be_asked and not env.has_attr("dt"):
            return 1.0, None
        step = env.get_attr("dt")[0]
    except AttributeError:
        return 1.0, None
    except (EOFError, ConnectionError):  # the process is gone, and the environment with it
        raise
    except Exception as error:  # a property may raise anything
        return 1.0, _note(f"raises {type(error).__name__} ({error})")
    seconds = _number(step)
    if seconds is None:
        return 1.0, _note(f"is {_short(step)}, not a number of seconds")
    with np.errstate(divide="ignore", over="ignore"):
        rate = float(np.float64(1.0) / seconds)
    if not (np.isfinite(rate) and rate > 0):
        return 1.0, _note(f"is {seconds:g}, not a positive number of seconds")
    return rate, None


def repetition(episodes: Sequence[Episode]) -> str | None:
    """
    A wrapper that repeats actions makes fewer decisions a second than the environment's ``dt`` tells.

    :param episodes: episodes; their length is what the ``Monitor`` below such a wrapper has counted
    :return: a sentence about it; None if actions are not repeated
    """
    steps, decisions = (sum(counts) for counts in zip(*((one.length, len(one.actions)) for one in episodes), strict=True))
    if steps <= decisions:
        return None
    return (
        f"a wrapper repeats its actions, {steps / decisions:.3g} times on average: unless dt counts that, frequencies in "
        "Hz are too high by that factor; give --control-rate, in actions a second"
    )


def _number(value: Any) -> float | None:
    """A number, or the only one of an array; None for anything else, which ``float`` might take for one."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    return float(value) if isinstance(value, Real) and not isinstance(value, bool | np.bool_) else None


def _short(value: Any) -> str:
    text = f"a {type(value).__name__}" if callable(value) else repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"


def _note(what: str) -> str:
    return f"the environment's dt {what}: frequencies are in cycles a step; give --control-rate, in actions a second"
