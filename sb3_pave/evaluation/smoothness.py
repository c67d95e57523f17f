"""How smooth a sequence of actions is: NumPy functions of the actions of one episode.

The measures take ``actions`` of shape ``(n_steps,)`` or ``(n_steps, action_dim)`` and return one float. Of those of smoothness
(``smoothness_score`` to ``high_frequency_share``), means over the action dimensions, lower is smoother and 0 is a constant
action; an episode too short to show a change (one step; two for second differences, three for the smoothness score) scores 0.
``saturation_rate`` and ``control_effort`` say at what price.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: A component closer to a bound than this share of half the action range counts as saturated.
SATURATION_MARGIN = 0.01


def smoothness_score(actions: ArrayLike, control_rate: float = 1.0) -> float:
    r"""
    The smoothness score :math:`sm = \frac{2}{n} \sum_{i < \lfloor n/2 \rfloor} M_i f_i`: the amplitude spectrum weighted
    by frequency.

    With actions in the environment's units and ``control_rate=1`` it is the published number (Lee et al. 2026,
    arXiv 2601.22970; introduced with CAPS, Mysore et al. 2021, arXiv 2012.06644). It depends on the unit of the actions, on
    the control rate and on the length of the episode: compare it within one environment only. The first ``n // 2``
    frequencies count, as in the published tables: of an odd number of steps the highest is left out, as Nyquist's is of an
    even one, and three steps score 0, however they jerk.

    :param actions: actions, shape ``(n_steps,)`` or ``(n_steps, action_dim)``
    :param control_rate: actions a second in Hz; 1 counts frequency in cycles a step
    :return: the score in action units times the unit of ``control_rate``
    :raises ValueError: if the actions are empty, not finite or of another shape, or the rate is not positive
    """
    actions = _as_columns(actions)
    control_rate = _positive_rate(control_rate)
    n_steps = len(actions)
    n_frequencies = n_steps // 2
    amplitudes = np.abs(np.fft.rfft(actions, axis=0)[:n_frequencies])
    frequencies = np.arange(n_frequencies) / n_steps * control_rate
    return float(np.mean(2.0 / n_steps * (frequencies @ amplitudes)))


def action_change(actions: ArrayLike) -> float:
    """
    Mean absolute change from one action to the next: what an actuator is asked to move in a step.

    :param actions: actions, shape ``(n_steps,)`` or ``(n_steps, action_dim)``
    :return: the mean change, in action units
    :raises ValueError: if the actions are empty, not finite or of another shape
    """
    return _mean_magnitude(np.diff(_as_columns(actions), axis=0))


def continuity_cost(actions: ArrayLike, low: ArrayLike, high: ArrayLike) -> float:
    """
    Mean squared change from one action to the next over the squared action range: free of units, harsh on jumps
    (1 is a jump from bound to bound in every step).

    :param actions: actions, shape ``(n_steps,)`` or ``(n_steps, action_dim)``
    :param low: lower action bounds, shape ``(action_dim,)`` or a number
    :param high: upper action bounds, shape ``(action_dim,)`` or a number
    :return: the cost, between 0 and 1
    :raises ValueError: if the actions are empty, not finite or of another shape, or a bound is not finite
    """
    return _mean_square(np.diff(scale_actions(actions, low, high) / 2.0, axis=0))


def second_difference(actions: ArrayLike) -> float:
    """
    Mean absolute second difference ``|a_{t+1} - 2 a_t + a_{t-1}|``, a proxy of jerk: a steady ramp costs nothing, a
    chattering action twice what :func:`action_change` says.

    :param actions: actions, shape ``(n_steps,)`` or ``(n_steps, action_dim)``
    :return: the mean second difference, in action units
    :raises ValueError: if the actions are empty, not finite or of another shape
    """
    return _mean_magnitude(np.diff(_as_columns(actions), n=2, axis=0))


def high_frequency_share(actions: ArrayLike, cutoff: float | None = None, control_rate: float = 1.0) -> float:
    """
    Share of the actions' variance (their spectral energy without the constant part) at frequencies above ``cutoff``.
    It says how the movement is spread over frequencies, whatever its size: multiply the actions by ten and it stays.

    :param actions: actions, shape ``(n_steps,)`` or ``(n_steps, action_dim)``
    :param cutoff: frequency in the unit of ``control_rate``; by default ``control_rate / 4``, the upper half of the spectrum
    :param control_rate: actions a second in Hz; 1 counts frequency in cycles a step
    :return: a share between 0 and 1; 0 for constant actions
    :raises ValueError: if the actions are empty, not finite or of another shape, or the cutoff is outside
        ``[0, control_rate / 2]``
    """
    actions = _as_columns(actions)
    control_rate = _positive_rate(control_rate)
    cutoff = control_rate / 4.0 if cutoff is None else cutoff
    if not 0.0 <= cutoff <= control_rate / 2.0:
        raise ValueError(f"cutoff must lie between 0 and half the control rate, {control_rate / 2.0:g}; got {cutoff:g}")
    frequencies, energy = action_spectrum(actions, control_rate)
    # A frequency at the cutoff is not above it, and k·(rate/n) may round to more
    is_high = frequencies > cutoff * (1 + 1e-9)
    total = energy.sum(axis=0)
    # The mean is subtracted in floating point: what is left of a constant is rounding, not movement
    rounding = (np.finfo(np.float64).eps * np.abs(actions).max(axis=0)) ** 2
    moving = total > rounding
    shares = np.zeros(actions.shape[1])
    shares[moving] = energy[is_high][:, moving].sum(axis=0) / total[moving]
    return float(shares.mean())


def saturation_rate(actions: ArrayLike, low: ArrayLike, high: ArrayLike, margin: float = SATURATION_MARGIN) -> float:
    """
    Share of action components at a bound, where a policy bangs rather than controls.

    :param actions: actions, shape ``(n_steps,)`` or ``(n_steps, action_dim)``
    :param low: lower action bounds, shape ``(action_dim,)`` or a number
    :param high: upper action bounds, shape ``(action_dim,)`` or a number
    :param margin: distance to a bound that counts as saturated, as a share of half the action range
    :return: a share between 0 and 1
    :raises ValueError: if the actions are empty, not finite or of another shape, or a bound is not finite
    """
    return float(is_saturated(actions, low, high, margin).mean())


def control_effort(actions: ArrayLike) -> float:
    """
    Mean squared norm of the action, ``E ||a_t||²``: what smoothness must not be bought with, nor paid for.

    :param actions: actions, shape ``(n_steps,)`` or ``(n_steps, action_dim)``
    :return: the effort, in squared action units
    :raises ValueError: if the actions are empty, not finite or of another shape
    """
    return float(np.mean(np.sum(_as_columns(actions) ** 2, axis=1)))


def action_spectrum(actions: ArrayLike, control_rate: float = 1.0) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """
    One-sided energy spectrum of the actions without their mean. Its sum is their variance (Parseval).

    :param actions: actions, shape ``(n_steps,)`` or ``(n_steps, action_dim)``
    :param control_rate: actions a second in Hz; 1 counts frequency in cycles a step
    :return: frequencies, shape ``(n_steps // 2 + 1,)``, and energies, shape ``(n_steps // 2 + 1, action_dim)``
    :raises ValueError: if the actions are empty, not finite or of another shape, or the rate is not positive
    """
    actions = _as_columns(actions)
    control_rate = _positive_rate(control_rate)
    n_steps = len(actions)
    energy: NDArray[np.float64] = np.abs(np.fft.rfft(actions - actions.mean(axis=0), axis=0) / n_steps) ** 2
    # Each frequency but zero and Nyquist stands for a pair of conjugate ones
    energy[1 : (n_steps + 1) // 2] *= 2.0
    frequencies: NDArray[np.floating] = np.arange(n_steps // 2 + 1) * (control_rate / n_steps)
    return frequencies, energy


def is_saturated(actions: ArrayLike, low: ArrayLike, high: ArrayLike, margin: float = SATURATION_MARGIN) -> NDArray[np.bool_]:
    """
    Which action components are at a bound.

    :param actions: actions, shape ``(n_steps,)`` or ``(n_steps, action_dim)``
    :param low: lower action bounds, shape ``(action_dim,)`` or a number
    :param high: upper action bounds, shape ``(action_dim,)`` or a number
    :param margin: distance to a bound that counts as saturated, as a share of half the action range
    :return: booleans, shape ``(n_steps, action_dim)``
    :raises ValueError: if the actions are empty, not finite or of another shape, or a bound is not finite
    """
    return np.abs(scale_actions(actions, low, high)) >= 1.0 - margin


def scale_actions(actions: ArrayLike, low: ArrayLike, high: ArrayLike) -> NDArray[np.float64]:
    """
    Actions from ``[low, high]`` to [-1, 1].

    :param actions: actions, shape ``(n_steps,)`` or ``(n_steps, action_dim)``
    :param low: lower action bounds, shape ``(action_dim,)`` or a number
    :param high: upper action bounds, shape ``(action_dim,)`` or a number
    :return: scaled actions, shape ``(n_steps, action_dim)``
    :raises ValueError: if the actions are empty, not finite or of another shape, or a bound is not finite
    """
    low, high = np.ravel(np.asarray(low, dtype=np.float64)), np.ravel(np.asarray(high, dtype=np.float64))
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise ValueError(f"Scaling actions needs finite bounds with low < high; got low={low}, high={high}")
    return 2.0 * (_as_columns(actions) - low) / (high - low) - 1.0


def smoothness_measures(
    actions: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    control_rate: float = 1.0,
    cutoff: float | None = None,
) -> dict[str, float]:
    """
    Every measure of this module on the actions of one episode.

    :param actions: actions in the environment's scale, shape ``(n_steps,)`` or ``(n_steps, action_dim)``
    :param low: lower action bounds, shape ``(action_dim,)`` or a number
    :param high: upper action bounds, shape ``(action_dim,)`` or a number
    :param control_rate: actions a second in Hz, used by ``sm_hz`` and ``high_frequency_share``
    :param cutoff: frequency above which energy counts as high, in the unit of ``control_rate``;
        by default ``control_rate / 4``
    :return: ``sm`` (published definition), ``sm_scaled`` (actions in [-1, 1]), ``sm_hz`` (actions in [-1, 1], frequency in
        the unit of ``control_rate``), ``action_change``, ``continuity_cost``, ``second_difference``,
        ``high_frequency_share``, ``saturation``, ``control_effort``. Without finite bounds, those that need them
        are NaN; they leave out dimensions whose two bounds are the same.
    :raises ValueError: if the actions are empty, not finite or of another shape, or the rate or cutoff is out of range
    """
    actions = _as_columns(actions)
    low, high = (np.broadcast_to(np.asarray(bound, np.float64), actions.shape[1:]) for bound in (low, high))
    movable = low != high
    bounded = bool(np.isfinite(low).all() and np.isfinite(high).all() and movable.any())
    within = (actions[:, movable], low[movable], high[movable])
    scaled = scale_actions(*within) if bounded else None
    return {
        "sm": smoothness_score(actions),
        "sm_scaled": np.nan if scaled is None else smoothness_score(scaled),
        "sm_hz": np.nan if scaled is None else smoothness_score(scaled, control_rate),
        "action_change": action_change(actions),
        "continuity_cost": continuity_cost(*within) if bounded else np.nan,
        "second_difference": second_difference(actions),
        "high_frequency_share": high_frequency_share(actions, cutoff, control_rate),
        "saturation": saturation_rate(*within) if bounded else np.nan,
        "control_effort": control_effort(actions),
    }


def _as_columns(actions: ArrayLike) -> NDArray[np.float64]:
    """Actions as float64 of shape ``(n_steps, action_dim)``, checked."""
    array = np.asarray(actions, dtype=np.float64)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"Expected actions of shape (n_steps,) or (n_steps, action_dim), not empty; got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("The actions contain NaN or infinity: the policy has diverged, its smoothness is not defined")
    return array


def _positive_rate(control_rate: float) -> float:
    if not (np.isfinite(control_rate) and control_rate > 0):
        raise ValueError(f"control_rate must be a positive number of actions a second; got {control_rate}")
    return float(control_rate)


def _mean_magnitude(differences: NDArray[np.float64]) -> float:
    return float(np.abs(differences).mean()) if len(differences) else 0.0


def _mean_square(differences: NDArray[np.float64]) -> float:
    return float((differences**2).mean()) if len(differences) else 0.0
