"""What a trial is measured by: return and sm, of several environments on the scale of the plain agent."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sb3_pave.evaluation.plain_data import plain
from sb3_pave.experiments.collection import Result, as_result
from sb3_pave.experiments.report import return_share
from sb3_pave.experiments.results import RESULT_FILE, load_result

MEASURES = ("return", "sm")


class NotFinite(ValueError):
    """A return or ``sm`` is no finite number; the message says whose."""


@dataclass(frozen=True)
class Scale:
    """
    What the plain agent reaches on an environment.

    :param total: its mean return over the runs
    :param sm: its mean ``sm``
    """

    total: float
    sm: float


def read_measures(folder: Path) -> Result:
    """
    :param folder: folder of a run that is done
    :return: its result
    :raises NotFinite: if the return or ``sm`` of an episode is not
    :raises ValueError: if the result is damaged; the message begins with its path
    """
    path = folder / RESULT_FILE
    data = load_result(path)
    lost = _not_finite(data)
    if lost:
        raise NotFinite(f"the {' and the '.join(lost)} of {folder} is not finite")
    return as_result(path, data)


def _not_finite(data: Mapping[str, Any]) -> list[str]:
    """JSON has null for it. Of a damaged result it says nothing."""
    with contextlib.suppress(AttributeError, KeyError, TypeError):
        episodes = data["evaluation"]["episodes"]
        return [name for name in MEASURES if None in episodes[name]]
    return []


def measure(results: Sequence[Result], scales: Mapping[str, Scale]) -> dict[str, Any]:
    """
    :param results: the runs of a trial
    :param scales: what the plain agent reaches, by environment; needed for more than one
    :return: ``return`` and ``sm`` of the trial; ``returns`` and ``sms`` of its runs; ``episode_std`` of the return
    :raises NotFinite: if a mean is not, though each episode is
    """
    environments = dict.fromkeys(result.data["environment"] for result in results)
    returns = [result.values["return"] for result in results]
    sms = [result.values["sm"] for result in results]
    stds = [float(np.std(result.returns)) for result in results]
    if len(environments) > 1:
        of_run = [scales[result.data["environment"]] for result in results]
        returns = [return_share(total, scale.total) for total, scale in zip(returns, of_run, strict=True)]
        sms = [sm / scale.sm for sm, scale in zip(sms, of_run, strict=True)]  # type: ignore[operator]
        stds = [std / abs(scale.total) for std, scale in zip(stds, of_run, strict=True)]
    means = {"return": float(np.mean(returns)), "sm": float(np.mean(sms))}  # type: ignore[arg-type]
    for name, mean in means.items():
        if not math.isfinite(mean):
            raise NotFinite(f"the mean {name} over {len(results)} runs is not finite")
    return plain(
        {
            **means,
            "returns": returns,
            "sms": sms,
            "episode_std": float(np.median(stds)),
        }
    )


def least_return(scales: Mapping[str, Scale], keep_return: float) -> float:
    """
    :param scales: what the plain agent reaches, by environment
    :param keep_return: the share of its return that has to be kept
    :return: the return that a trial has to reach; of several environments, the share
    """
    if len(scales) > 1:
        return keep_return
    (scale,) = scales.values()
    return scale.total - (1.0 - keep_return) * abs(scale.total)
