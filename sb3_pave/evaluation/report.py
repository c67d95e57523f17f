"""The numbers of several agents: what is saved, how runs are aggregated, and the tables made of them.

A report is plain data (dicts, lists, numbers), saved as JSON; the pictures are drawn from it. See :func:`new_report`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sb3_pave.evaluation.geometry import RolloutGeometry
from sb3_pave.evaluation.intervals import FEWEST_RUNS, interquartile_intervals
from sb3_pave.evaluation.rollout import Rollout
from sb3_pave.evaluation.surface import SurfacePlane

FORMAT = 1

#: What a table shows, in its order, and how it is called there
MEASURES = {
    "return": "return",
    "length": "episode length (steps)",
    "sm": "sm (published)",
    "sm_scaled": "sm, actions in [-1, 1]",
    "sm_hz": "sm, actions in [-1, 1], in Hz",
    "action_change": "mean action change",
    "continuity_cost": "continuity cost",
    "second_difference": "mean second difference",
    "high_frequency_share": "high-frequency share",
    "saturation": "saturation rate",
    "control_effort": "control effort",
}
GEOMETRY_MEASURES = {
    "M_mean": "M, mean",
    "M_sup": "M, sup",
    "trace_mean": "trace of ∇²_aa Q, mean",
    "lambda_max_mean": "largest eigenvalue of ∇²_aa Q, mean",
    "mu_mean": "μ, mean where concave",
    "negative_definite_rate": "negative-definiteness rate",
    "bound_median": "M/μ, median where defined",
    "bound_defined_rate": "share of states where M/μ is defined",
    "field_turn_noise": "relative field turn under noise",
    "field_turn_step": "relative field turn in one step",
    "actor_jacobian_median_where_bound": "‖∇_s π‖, median there",
    "actor_jacobian_mean": "‖∇_s π‖, mean",
    "actor_jacobian_sup": "‖∇_s π‖, sup",
    "cosine_mean": "cosine of consecutive ∇_a Q, mean",
    "flip_rate": "flip rate of ∇_a Q",
    "at_bound_rate": "share of states with an action at a bound",
}


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
    defined = [_defined(values) for values in runs]
    defined = [values for values in defined if len(values)]
    if not defined:
        return Aggregate(math.nan, math.nan, math.nan, math.nan, math.nan, 0)
    episodes = np.concatenate(defined)
    means = np.array([values.mean() for values in defined])
    iqm, low, high = (float(value[0]) for value in interquartile_intervals(means[:, None]))
    return Aggregate(float(episodes.mean()), float(episodes.std()), iqm, low, high, len(defined))


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
            "actions": first.actions.reshape(len(first.actions), -1),
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
    return _plain(record)


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


def summary_table(report: Mapping[str, Any]) -> pd.DataFrame:
    """
    The table that is printed: a row for each measure, a column for each algorithm. ``mean ± standard deviation`` over
    episodes and, of several runs, ``IQM [95 % interval]`` over runs; of fewer than five, that interval is their range.

    :param report: a report
    :return: text
    """
    columns = {}
    for algorithm in algorithms(report):
        runs = runs_of(report, algorithm)
        column = {"runs x episodes": f"{len(runs)} x {len(runs[0]['episodes']['return'])}"}
        column.update(_cells(MEASURES, [run["episodes"] for run in runs], ""))
        for level in _noise_levels(runs):
            episodes = [
                entry["episodes"] for run in runs for entry in run.get("robustness", []) if entry["noise_level"] == level
            ]
            column.update(_cells({"return": "return", "sm": "sm"}, episodes, f", noise {level:g}", n_runs=len(runs)))
        of_runs = [{name: [value] for name, value in run.get("geometry", {}).items()} for run in runs]
        column.update(_cells(GEOMETRY_MEASURES, of_runs, "", per_run=True))
        columns[algorithm] = column
    return (
        pd.DataFrame(columns).reindex(list(dict.fromkeys(name for column in columns.values() for name in column))).fillna("")
    )


def caption(report: Mapping[str, Any]) -> str:
    """
    How the numbers of a report were measured.

    :param report: a report
    :return: one sentence or two
    """
    settings = report["settings"]
    actions = "deterministic" if settings["deterministic"] else "stochastic"
    rate, noise = settings["control_rate"], settings.get("noise_reference")
    scale = "each agent's own" if noise is None else f"those of {noise}"
    parts = [
        f"{report['environment']}: {actions} actions, seed {settings['seed']}, control rate "
        + ("1 (frequencies in cycles a step)." if rate == 1 else f"{rate:g} Hz."),
        "Mean ± standard deviation over episodes" + _interval_caption(report),
    ]
    if any("robustness" in run for run in report["runs"]):
        parts.append(f"Noise is in standard deviations of the observations, {scale}.")
    return " ".join(parts)


def _interval_caption(report: Mapping[str, Any]) -> str:
    """What stands below the means: few runs have no interval that deserves the name."""
    most = max((len(runs_of(report, algorithm)) for algorithm in algorithms(report)), default=0)
    if most <= 1:
        return "."
    of_runs = "; below it, of several runs, the interquartile mean over runs and"
    if most < FEWEST_RUNS:
        return f"{of_runs} the range of the runs, which are too few for a confidence interval."
    return f"{of_runs} its 95 % bootstrap interval, of fewer than {FEWEST_RUNS} runs their range."


def markdown(report: Mapping[str, Any]) -> str:
    """
    :param report: a report
    :return: its table and caption in Markdown
    """
    table = summary_table(report)
    rows = [["measure", *table.columns], ["---"] * (len(table.columns) + 1)]
    rows += [[name, *(cell.replace("\n", "<br>") for cell in cells)] for name, *cells in table.itertuples(name=None)]
    notes = "".join(f"- {note}\n" for note in report.get("notes", []))
    table_text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"{table_text}\n\n{caption(report)}\n" + (f"\n{notes}" if notes else "")


def episode_table(report: Mapping[str, Any]) -> pd.DataFrame:
    """
    :param report: a report
    :return: a row for each episode: algorithm, run, noise level, number and all its measures
    """
    frames = []
    for run in report["runs"]:
        levels = [{"noise_level": None, "episodes": run["episodes"]}, *run.get("robustness", [])]
        for entry in levels:
            frame = pd.DataFrame(entry["episodes"], dtype=float)
            frame.insert(0, "episode", range(len(frame)))
            frame.insert(0, "noise_level", entry["noise_level"])
            frame.insert(0, "run", run["run"])
            frame.insert(0, "algorithm", run["algorithm"])
            frames.append(frame.astype({"noise_level": float}))
    return pd.concat(frames, ignore_index=True)


def geometry_table(report: Mapping[str, Any]) -> pd.DataFrame:
    """
    :param report: a report
    :return: a row for each run with a geometry: algorithm, run and all of its geometry
    """
    return pd.DataFrame(
        [{"algorithm": run["algorithm"], "run": run["run"], **run["geometry"]} for run in report["runs"] if "geometry" in run]
    )


#: Endings of the files of a report
SUFFIXES = {"json": ".json", "csv": ".csv", "geometry": "_geometry.csv", "markdown": ".md"}


def saved_files(base: str | Path) -> dict[str, Path]:
    """
    :param base: path without a suffix
    :return: the files that :func:`save_report` writes, by kind
    """
    base = Path(base)
    return {kind: base.with_name(base.name + suffix) for kind, suffix in SUFFIXES.items()}


def save_report(report: Mapping[str, Any], base: str | Path, overwrite: bool = False) -> list[Path]:
    """
    Save as JSON (everything), CSV (a row for each episode, and one for each run's geometry) and Markdown (the table).

    :param report: a report
    :param base: path without a suffix
    :param overwrite: whether to replace files that exist
    :return: the files written
    :raises FileExistsError: if one of them exists
    """
    files = saved_files(base)
    check_free(files.values(), overwrite)
    files["json"].parent.mkdir(parents=True, exist_ok=True)
    files["json"].write_text(json.dumps(_plain(report), allow_nan=False) + "\n", encoding="utf-8")
    episode_table(report).to_csv(files["csv"], index=False)
    files["markdown"].write_text(markdown(report), encoding="utf-8")
    geometry = geometry_table(report)
    if geometry.empty:
        files["geometry"].unlink(missing_ok=True)  # of an older report of this name
        del files["geometry"]
    else:
        geometry.to_csv(files["geometry"], index=False)
    return list(files.values())


def check_free(files: Iterable[Path], overwrite: bool, option: str = "--output") -> None:
    """
    :param files: files about to be written
    :param overwrite: whether they may exist
    :param option: what names them
    :raises FileExistsError: if one of them exists
    """
    existing = [str(file) for file in files if os.path.exists(file)]  # no error of a name that is too long
    if existing and not overwrite:
        raise FileExistsError(f"{existing[0]} exists: choose another {option}, or --overwrite it")


def check_writable(files: Iterable[Path]) -> None:
    """
    Make the folders and try the files before the work that they are for.

    :param files: files about to be written; those that exist stay as they are
    :raises OSError: if one of them can't be written
    """
    for file in files:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            existed = os.path.lexists(file)
            file.open("ab").close()
            if not existed:
                file.unlink()
        except OSError as error:
            in_a_file = isinstance(error, FileExistsError | NotADirectoryError)
            reason = "its folder is a file" if in_a_file else error.strerror
            raise OSError(f"{file} can't be written: {reason}") from error


def load_report(path: str | Path) -> dict[str, Any]:
    """
    :param path: a JSON file of :func:`save_report`
    :return: the report
    :raises ValueError: if the file is not a report
    """
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} could not be read: {error}") from error
    if not isinstance(report, dict) or report.get("format") != FORMAT or not report.get("runs"):
        raise ValueError(f'{path} is not a report of "sb3-pave evaluate"')
    return report


def _cells(
    measures: Mapping[str, str],
    runs: Sequence[Mapping[str, Sequence[float]]],
    suffix: str,
    per_run: bool = False,
    n_runs: int | None = None,
) -> dict[str, str]:
    """One column's cells: a label and a text for each measure, which says so where not all runs have it."""
    cells = {}
    for name, label in measures.items():
        having = [run[name] for run in runs if name in run]
        if not having:
            continue
        result = aggregate(having)
        if result.n_runs == 0:
            text = "not defined"
        elif per_run and result.n_runs == 1:
            text = format_number(result.mean)
        else:
            text = f"{format_number(result.mean)} ± {format_number(result.std)}"
        if result.n_runs > 1:
            text += f"\n{format_number(result.iqm)} [{format_number(result.low)}, {format_number(result.high)}]"
        if len(having) < (n_runs or len(runs)):
            text += f"\n({len(having)} of {n_runs or len(runs)} runs)"
        cells[label + suffix] = text
    return cells


def format_number(value: float) -> str:
    """
    :param value: a number
    :return: its three significant digits, and all digits before the point
    """
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _noise_levels(runs: Sequence[Mapping[str, Any]]) -> list[float]:
    return list(dict.fromkeys(entry["noise_level"] for run in runs for entry in run.get("robustness", [])))


def _defined(values: Sequence[float | None]) -> NDArray[np.float64]:
    array = np.array(values, dtype=np.float64)
    return array[np.isfinite(array)]


def _plain(value: Any) -> Any:
    """Data that JSON knows: lists for arrays, None for what is not a finite number."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
