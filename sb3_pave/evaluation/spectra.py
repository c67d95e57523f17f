"""Spectra of the actions of runs in a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_pave.evaluation.smoothness import action_spectrum, scale_actions

_BINS = 40


def scaled_trace(run: Mapping[str, Any]) -> NDArray:
    """
    :param run: an entry of a report's ``runs``
    :return: the actions of its first episode, scaled to [-1, 1] where they have bounds; shape ``(n_steps, action_dim)``
    """
    trace = run["trace"]
    low, high = np.array(trace["low"]), np.array(trace["high"])
    if None in [*trace["low"], *trace["high"]] or (low == high).any():
        return np.array(trace["actions"])
    return scale_actions(trace["actions"], low, high)


def mean_spectrum(traces: Sequence[NDArray], rate: float) -> tuple[NDArray, NDArray]:
    """
    Episodes differ in length, and so in their frequencies: mean energy in bins of frequency, as a density of lines.

    :param traces: actions of an episode each, shape ``(n_steps, action_dim)``
    :param rate: actions a second in Hz; 1 counts frequency in cycles a step
    :return: the middles of the bins that have a frequency, and their energies, mean over the action dimensions
    """
    edges = np.linspace(0.0, rate / 2.0, _BINS + 1)
    frequencies, energies = [], []
    for trace in traces:
        frequency, energy = action_spectrum(trace, rate)
        frequencies.append(frequency[1:])
        energies.append(energy.mean(axis=1)[1:])
    bins = np.clip(np.digitize(np.concatenate(frequencies), edges) - 1, 0, _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS)
    sums = np.bincount(bins, weights=np.concatenate(energies), minlength=_BINS)
    filled = counts > 0
    return ((edges[:-1] + edges[1:]) / 2)[filled], sums[filled] / counts[filled]
