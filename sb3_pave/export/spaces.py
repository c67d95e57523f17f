"""Entries of an observation, and which of their numbers a graph takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

#: Observations by entry, each of shape ``(batch, *shape)``; one that is no ``Dict`` has the single entry :data:`SINGLE`
Entries = dict[str, NDArray]

SINGLE = "observation"


def entries_of(space: spaces.Space) -> dict[str, spaces.Space]:
    """
    :param space: the observation space of a model
    :return: its entries by name, in the order in which the graph takes them
    """
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {SINGLE: space}


def as_observations(entries: Entries, space: spaces.Space) -> Any:
    """
    :param entries: observations by entry
    :param space: the observation space of a model
    :return: the same as ``predict`` and ``VecNormalize`` take them
    """
    return entries if isinstance(space, spaces.Dict) else entries[SINGLE]


def input_type(space: spaces.Space) -> np.dtype:
    """
    :param space: the space of an entry
    :return: the type of the graph's input: float32, but for integers, which keep theirs
    """
    dtype = np.dtype(space.dtype)
    return dtype if np.issubdtype(dtype, np.integer) else np.dtype(np.float32)
