"""Observations of many states: their number and size, some of them, and some at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

#: As the policy gets them, shape ``(n, *observation_shape)``, or a dict of such arrays
Observations = NDArray | dict[str, NDArray]


def batch_size(observations: Observations) -> int:
    """
    :param observations: an array of observations, or a dict of them
    :return: their number
    """
    return len(next(iter(observations.values()))) if isinstance(observations, dict) else len(observations)


def rows(observations: Observations, index: NDArray[np.integer] | slice) -> Observations:
    """
    :param observations: an array of observations, or a dict of them
    :param index: which of them
    :return: those observations
    """
    if isinstance(observations, dict):
        return {key: np.asarray(value[index]) for key, value in observations.items()}
    return np.asarray(observations[index])


def state_dim(observations: Observations) -> int:
    """
    :param observations: an array of observations, or a dict of them
    :return: how many numbers one of them has
    """
    arrays = list(observations.values()) if isinstance(observations, dict) else [observations]
    return sum(int(np.prod(array.shape[1:])) for array in arrays)


def chunks(n: int, size: int) -> Iterator[slice]:
    """
    :param n: how many observations there are
    :param size: how many are taken at a time
    :return: which of them are taken together, one part after the other; the last may be smaller
    """
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
