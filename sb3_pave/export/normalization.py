"""The statistics of ``VecNormalize``, from a wrapper or its file."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecNormalize

from sb3_pave.evaluation.errors import AgentError
from sb3_pave.evaluation.statistics_file import read_statistics
from sb3_pave.export.errors import ExportError
from sb3_pave.export.spaces import SINGLE, entries_of


def load_normalization(vec_normalize: VecNormalize | str | os.PathLike | None) -> VecNormalize | None:
    """
    :param vec_normalize: the wrapper, the file that it was saved to, or None
    :return: the wrapper; one from a file has no environment
    :raises ExportError: if the file can't be read or holds something else
    """
    if vec_normalize is None or isinstance(vec_normalize, VecNormalize):
        return vec_normalize
    try:
        return read_statistics(vec_normalize)
    except AgentError as error:
        raise ExportError(str(error)) from error


def statistics_of(normalization: VecNormalize | None, space: spaces.Space) -> dict[str, tuple[NDArray, NDArray]]:
    """
    Mean and scale of each observation entry that ``VecNormalize`` normalises.

    :param normalization: the wrapper
    :param space: the observation space of the model
    :return: by entry, two float64 arrays of its shape
    :raises ExportError: if they don't fit the space, are not finite or leave float32's range
    """
    if normalization is None or not normalization.norm_obs:
        return {}
    moments: Any = normalization.obs_rms
    if not isinstance(moments, dict):
        moments = {SINGLE: moments}
    result = {}
    for name, moment in moments.items():
        entry = entries_of(space).get(name)
        if entry is None or entry.shape != moment.mean.shape:
            raise ExportError(
                f"The VecNormalize statistics of {name!r} have shape {moment.mean.shape}; the model observes "
                f"{'nothing of that name' if entry is None else entry.shape} (stacked frames can't be exported)"
            )
        mean, scale = np.asarray(moment.mean, np.float64), np.sqrt(moment.var + normalization.epsilon)
        largest, smallest = np.finfo(np.float32).max, np.finfo(np.float32).tiny
        # Written so that NaN is refused, too
        if not (np.all(np.abs(mean) <= largest) and np.all(scale <= largest) and np.all(scale >= smallest)):
            raise ExportError(f"The VecNormalize statistics of {name!r} are not finite numbers in float32's range")
        result[name] = (mean, scale)
    return result
