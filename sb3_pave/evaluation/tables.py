"""The tables of a report: what is printed, and what is saved as CSV and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from sb3_pave.evaluation.aggregate import aggregate
from sb3_pave.evaluation.intervals import FEWEST_RUNS
from sb3_pave.evaluation.report import algorithms, runs_of

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


def summary_table(report: Mapping[str, Any]) -> pd.DataFrame:
    """
    The table that is printed: a row for each measure, a column for each algorithm. ``mean ± standard deviation`` over
    episodes and, of several runs, ``IQM [95 % interval]`` over runs; of fewer than five, that interval is their range.

    :param report: a report
    :return: text
    """
    columns = {}
    # Without a rate in Hz it would be sm_scaled under another name
    measures = {name: label for name, label in MEASURES.items() if name != "sm_hz" or report["settings"]["control_rate"] != 1}
    for algorithm in algorithms(report):
        runs = runs_of(report, algorithm)
        column = {"runs x episodes": f"{len(runs)} x {len(runs[0]['episodes']['return'])}"}
        column.update(_cells(measures, [run["episodes"] for run in runs], ""))
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


def with_names(table: pd.DataFrame) -> pd.DataFrame:
    """
    :param table: from :func:`summary_table`
    :return: the same with the measures as its first column; an algorithm, too, may be labelled "measure"
    """
    return table.reset_index(names="measure", allow_duplicates=True)


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
        f"Mean ± standard deviation over episodes{_geometry_caption(report)}" + _interval_caption(report),
    ]
    if any("robustness" in run for run in report["runs"]):
        parts.append(f"Noise is in standard deviations of the observations, {scale}.")
    return " ".join(parts)


def _geometry_caption(report: Mapping[str, Any]) -> str:
    """A run has one value of it."""
    runs = [run["algorithm"] for run in report["runs"] if "geometry" in run]
    return ", of the geometry over runs" if len(runs) > len(set(runs)) else ""


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
    table = markdown_table(with_names(summary_table(report)))
    notes = "".join(f"- {note}\n" for note in report.get("notes", []))
    return f"{table}\n\n{caption(report)}\n" + (f"\n{notes}" if notes else "")


def markdown_table(cells: pd.DataFrame) -> str:
    """
    :param cells: text
    :return: the table in Markdown, whatever the text holds
    """
    rows = [cells.columns, ["---"] * len(cells.columns), *cells.itertuples(index=False, name=None)]
    escaped = [[cell.replace("|", r"\|").replace("\n", "<br>") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in escaped)


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
