"""A measure of several runs in one number, with how certain it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sb3_pave.evaluation.intervals import interquartile_intervals


@dataclass(frozen=True)
class Aggregate:
    """
    One measure of several runs of one algorithm.

    :param mean: mean over all episodes of all runs
    :param std: standard deviation over all episodes of all runs
    :param iqm: interquartile mean of the runs' means
    :param low: lower end of its 95 % bootstrap interval, which is the range of fewer than five runs; NaN of a single run
    :param high: upper end
    :param n_runs: number of runs
    """

    mean: float
    std: float
    iqm: float
    low: float
    high: float
    n_runs: int


def aggregate(runs: Sequence[Sequence[float]]) -> Aggregate:
    """
    Aggregate a measure over runs (seeds): they, not the episodes, are the independent samples, so rliable's interquartile
    mean and its percentile bootstrap (Agarwal et al. 2021, arXiv 2108.13264) work on the runs' means.

    :param runs: the values of each run, one an episode; values that are not defined (None, NaN) are left out
    :return: the aggregate, of NaN if no value is defined
    """
    of_runs = [finite for values in runs if len(finite := defined(values))]
    if not of_runs:
        return Aggregate(math.nan, math.nan, math.nan, math.nan, math.nan, 0)
    episodes = np.concatenate(of_runs)
    means = np.array([values.mean() for values in of_runs])
    iqm, low, high = (float(value[0]) for value in interquartile_intervals(means[:, None]))
    return Aggregate(float(episodes.mean()), float(episodes.std()), iqm, low, high, len(of_runs))


def defined(values: Sequence[float | None]) -> NDArray[np.float64]:
    """
    :param values: the values of a run
    :return: those of them that are finite numbers
    """
    array = np.array(values, dtype=np.float64)
    return array[np.isfinite(array)]
