"""Interquartile means of runs and how certain they are: rliable's bootstrap."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

# 2000 resamples place a 95 % interval to about its hundredth; the seed makes the same report of the same numbers
BOOTSTRAP_SAMPLES, BOOTSTRAP_SEED, CONFIDENCE = 2000, 0, 0.95

#: Of fewer runs of one task, the interval is their range: more than 2.5 % of the resamples have the lowest one's score, and as
#: many the highest one's
FEWEST_RUNS = 5

#: Share of the scores that the interquartile mean leaves out at either end
TRIMMED = 0.25

Floats = NDArray[np.float64]


def interquartile_mean(*tasks: Floats) -> Floats:
    """
    Interquartile mean over the runs of all tasks, pooled: ``scipy.stats.trim_mean(scores, 0.25)``, which rliable takes,
    without what makes that slow in a bootstrap.

    :param tasks: the scores of each task, shape ``(n_runs, n_values)``; tasks may differ in ``n_runs``
    :return: the mean of the middle half of each value, shape ``(n_values,)``
    """
    pooled = np.sort(np.concatenate(tasks), axis=0)
    n_trimmed = int(TRIMMED * len(pooled))
    return pooled[n_trimmed : len(pooled) - n_trimmed].mean(axis=0)


def interquartile_intervals(*tasks: Floats) -> tuple[Floats, Floats, Floats]:
    """
    Interquartile means and their percentile bootstrap intervals (Agarwal et al. 2021, arXiv 2108.13264). Resampling is
    stratified: each task's runs are drawn from its own.

    :param tasks: the scores of each task, shape ``(n_runs, n_values)``, all finite; each value is treated on its own
    :return: the means and the lower and upper ends of their 95 % intervals, each of shape ``(n_values,)``; NaN for the ends
        if no task has more than one run
    :raises ImportError: if rliable is not installed
    """
    means = interquartile_mean(*tasks)
    if all(len(scores) < 2 for scores in tasks) or not len(means):
        missing = np.full_like(means, np.nan)
        return means, missing, missing
    try:
        from rliable import library
    except ImportError as error:
        raise ImportError('Aggregating runs needs rliable: pip install "sb3-pave[eval]"') from error
    with _seeded_numpy(BOOTSTRAP_SEED):
        _, intervals = library.get_interval_estimates(
            {"": list(tasks)}, interquartile_mean, reps=BOOTSTRAP_SAMPLES, confidence_interval_size=CONFIDENCE
        )
    low, high = intervals[""]
    return means, low, high


@contextmanager
def _seeded_numpy(seed: int) -> Iterator[None]:
    """rliable draws from NumPy's global generator, whatever state it is given."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)
