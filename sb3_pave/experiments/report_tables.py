"""The tables of a grid's report, as they are read and as CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from sb3_pave.evaluation.intervals import FEWEST_RUNS
from sb3_pave.evaluation.tables import format_number, markdown_table
from sb3_pave.experiments.titles import over_tasks_title, spread_name, task_title

#: Columns of the tables, where there are numbers for them, with what they are multiplied by
COLUMNS = {
    "return": ("return", 1.0),
    "sm": ("sm", 1.0),
    "sm_noise_0.1": ("sm, noise 0.1 σ", 1.0),
    "geometry_bound_median": ("M/μ", 1.0),
    "geometry_negative_definite_rate": ("concave states (%)", 100.0),
    "seconds_train": ("training (min)", 1.0 / 60.0),
}

CAPTION = "Interquartile mean over runs (seeds) and {spread}. Lower sm is smoother."
CAPTION_OF_ONE = "A single run (seed) of each method. Lower sm is smoother."
GEOMETRY_CAPTION = " M/μ bounds the actor's sensitivity; concave states are those with a negative definite ∇²_aa Q."
OVER_TASKS_CAPTION = (
    "Each run on the scale of {reference}'s interquartile mean on its task: return 1 + (R - R_ref)/|R_ref|, so that 0.98 has "
    "lost 2 %, whatever the sign; sm as a ratio. Interquartile mean over all runs of all tasks, 95 % interval of a bootstrap "
    "within tasks{caution}."
)


def task_table(task: Mapping[str, Any]) -> pd.DataFrame:
    """
    The table of a task as it is read: a row for each method.

    :param task: an entry of a report's ``tasks``
    :return: text, ``IQM [95 % interval]``; of few runs, that interval is their range
    """
    shown = {name: column for name, column in COLUMNS.items() if any(name in one["measures"] for one in task["methods"])}
    rows = []
    for one in task["methods"]:
        row = {"method": one["method"], "runs": str(len(one["seeds"]))}
        for name, (label, factor) in shown.items():
            row[label] = _cell(one["measures"].get(name), factor, len(one["seeds"]))
        rows.append(row)
    return pd.DataFrame(rows)


def over_tasks_table(report: Mapping[str, Any]) -> pd.DataFrame:
    """
    The table over all tasks as it is read: a row for each method.

    :param report: a report
    :return: text; empty if there is one task
    """
    rows = [
        {
            "method": one["method"],
            "tasks": str(one["n_tasks"]),
            "runs": str(one["n_runs"]),
            "return": _cell(one["return"], 1.0, one["n_runs"]),
            "sm": _cell(one["sm"], 1.0, one["n_runs"]),
        }
        for one in report["over_tasks"]
    ]
    return pd.DataFrame(rows)


def tables(report: Mapping[str, Any]) -> list[tuple[str, str, pd.DataFrame]]:
    """
    :param report: a report
    :return: title, caption and table of each task, then of all together
    """
    shown = []
    for task in report["tasks"]:
        table = task_table(task)
        spread = spread_name(task)
        caption = CAPTION.format(spread=spread) if spread else CAPTION_OF_ONE
        caption += GEOMETRY_CAPTION if COLUMNS["geometry_bound_median"][0] in table else ""
        shown.append((task_title(task), caption, table))
    if report["over_tasks"]:
        are_few = any(one["n_runs"] < FEWEST_RUNS * one["n_tasks"] for one in report["over_tasks"])
        caution = f", which is too narrow where a task has fewer than {FEWEST_RUNS} runs" if are_few else ""
        caption = OVER_TASKS_CAPTION.format(reference=report["reference"], caution=caution)
        shown.append((over_tasks_title(report), caption, over_tasks_table(report)))
    return shown


def markdown(report: Mapping[str, Any], pictures: Mapping[str, Sequence[str]] | None = None) -> str:
    """
    :param report: a report
    :param pictures: file names of the pictures below each table, by its title
    :return: all tables in Markdown, with their captions and the notes
    """
    parts = []
    for title, caption, table in tables(report):
        parts += [f"## {title}", markdown_table(table), caption]
        parts += [f"![{title}]({name})" for name in (pictures or {}).get(title, ())]
    if report["notes"]:
        parts += ["## Notes", "\n".join(f"- {note}" for note in report["notes"])]
    return "\n\n".join(parts) + "\n"


def measure_table(report: Mapping[str, Any]) -> pd.DataFrame:
    """
    :param report: a report
    :return: a row for each task, method and measure: its interquartile mean, interval and number of runs
    """
    rows = []
    for task in report["tasks"]:
        for one in task["methods"]:
            for name, value in one["measures"].items():
                known = {"environment": task["environment"], "steps": task["steps"], "method": one["method"], "measure": name}
                rows.append(
                    {**known, "iqm": value["iqm"], "low": value["low"], "high": value["high"], "runs": value["n_runs"]}
                )
    return pd.DataFrame(rows)


def run_table(report: Mapping[str, Any]) -> pd.DataFrame:
    """
    :param report: a report
    :return: a row for each run: environment, steps, method, seed and every measure
    """
    rows = []
    for task in report["tasks"]:
        for one in task["methods"]:
            for i, seed in enumerate(one["seeds"]):
                known = {"environment": task["environment"], "steps": task["steps"], "method": one["method"], "seed": seed}
                rows.append({**known, **{name: value["of_runs"][i] for name, value in one["measures"].items()}})
    return pd.DataFrame(rows)


def _cell(value: Mapping[str, Any] | None, factor: float, n_runs: int) -> str:
    if value is None:
        return ""
    if value["iqm"] is None:
        return "not defined"
    text = format_number(value["iqm"] * factor)
    if value["low"] is not None:
        text += f" [{format_number(value['low'] * factor)}, {format_number(value['high'] * factor)}]"
    return text if value["n_runs"] == n_runs else f"{text} ({value['n_runs']} of {n_runs} runs)"
