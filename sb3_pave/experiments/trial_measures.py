"""What a trial is measured by: return and sm, of several environments on the scale of the plain agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sb3_pave.experiments.collection import Result
from sb3_pave.experiments.files import plain
from sb3_pave.experiments.report import return_share


@dataclass(frozen=True)
class Scale:
    """
    What the plain agent reaches on an environment.

    :param total: its mean return over the runs
    :param sm: its mean ``sm``
    """

    total: float
    sm: float


def measure(results: Sequence[Result], scales: Mapping[str, Scale]) -> dict[str, Any]:
    """
    :param results: the runs of a trial
    :param scales: what the plain agent reaches, by environment; needed for more than one
    :return: ``return`` and ``sm`` of the trial; ``returns`` and ``sms`` of its runs; ``episode_std`` of the return
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
    return plain(
        {
            "return": float(np.mean(returns)),  # type: ignore[arg-type]
            "sm": float(np.mean(sms)),  # type: ignore[arg-type]
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
