"""The numbers of several agents as plain data (dicts, lists, numbers), of which tables and pictures are made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sb3_pave.evaluation.plain_data import plain
from sb3_pave.evaluation.rollout import Rollout
from sb3_pave.evaluation.rollout_geometry import RolloutGeometry
from sb3_pave.evaluation.surface import SurfacePlane

FORMAT = 1


def new_report(env_id: str, **settings: Any) -> dict[str, Any]:
    """
    A report without runs: ``format``, ``environment``, ``settings`` (how it was measured) and ``runs``, a list that
    :func:`run_record` makes the entries of. Where something could not be measured, ``notes`` is a list of sentences on it.

    :param env_id: the environment
    :param settings: how it is measured: ``deterministic``, ``seed``, ``control_rate`` ...
    :return: the report
    """
    return {"format": FORMAT, "environment": env_id, "settings": settings, "runs": []}


def run_record(
    algorithm: str,
    run: str,
    model_path: str | Path,
    rollout: Rollout,
    control_rate: float = 1.0,
    cutoff: float | None = None,
    robustness: Mapping[float, Rollout] | None = None,
    geometry: RolloutGeometry | None = None,
    plane: SurfacePlane | None = None,
    heights: NDArray | None = None,
    training: Mapping[str, list[float]] | None = None,
) -> dict[str, Any]:
    """
    What was measured on one run, as it is saved.

    :param algorithm: name of the algorithm, or another label that its runs are pooled under
    :param run: name of the run
    :param model_path: where the model is
    :param rollout: its plain episodes; the actions of the first are kept as a trace
    :param control_rate: actions a second in Hz; 1 counts frequency in cycles a step
    :param cutoff: frequency above which energy counts as high
    :param robustness: its episodes at each noise level
    :param geometry: geometry along the plain episodes
    :param plane: where the surface was taken
    :param heights: the surface
    :param training: what was measured while it was trained, see ``Agent.training_curves``
    :return: the entry of a report's ``runs``
    """
    first = rollout.episodes[0]
    record: dict[str, Any] = {
        "algorithm": algorithm,
        "run": run,
        "model": str(model_path),
        "episodes": rollout.smoothness(control_rate, cutoff),
        "trace": {
            "actions": first.action_columns,
            "low": rollout.action_space.low.ravel(),  # type: ignore[attr-defined]
            "high": rollout.action_space.high.ravel(),  # type: ignore[attr-defined]
        },
    }
    if robustness is not None:
        record["robustness"] = [
            {"noise_level": level, "episodes": noisy.smoothness(control_rate, cutoff)} for level, noisy in robustness.items()
        ]
    if geometry is not None:
        record["geometry"] = geometry.summary()
    if plane is not None and heights is not None:
        record["surface"] = {
            "state_index": plane.state_index,
            "action_index": plane.action_index,
            "state_axis": plane.state_axis,
            "action_axis": plane.action_axis,
            "observation": plane.observation,
            "action": plane.action,
            "heights": heights,
        }
    if training:
        record["training"] = dict(training)
    return plain(record)


def algorithms(report: Mapping[str, Any]) -> list[str]:
    """
    :param report: a report
    :return: its algorithms, in the order in which they were measured
    """
    return list(dict.fromkeys(run["algorithm"] for run in report["runs"]))


def runs_of(report: Mapping[str, Any], algorithm: str) -> list[dict[str, Any]]:
    """
    :param report: a report
    :param algorithm: one of its algorithms
    :return: the runs of that algorithm
    """
    return [run for run in report["runs"] if run["algorithm"] == algorithm]
