"""
The report of a grid: results -> numbers. Tables (:mod:`sb3_pave.experiments.report_tables`) and pictures
(:mod:`sb3_pave.experiments.pictures`) are made of it.

A report is plain data (dicts, lists, numbers). Its ``tasks`` have an entry for each environment and number of steps, with its
``methods``; ``over_tasks`` compares the methods over all tasks, each task on the scale of the reference method.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_pave.evaluation.intervals import interquartile_intervals
from sb3_pave.experiments.collection import Result, read_results
from sb3_pave.experiments.grouping import ReportError, group, method_names, notes_of_runs
from sb3_pave.experiments.titles import task_title

FORMAT = 1
CURVES = ("return", "sm")


def report(
    folders: str | Path | Iterable[str | Path], methods: Sequence[str] | None = None, reference: str | None = None
) -> dict[str, Any]:
    """
    Aggregate every ``result.json`` under some folders.

    Runs of a method are pooled only where all that their results tell of how they were made is the same but for the seed.
    Other steps make another task; other hyperparameters or another evaluation under the same name make another method,
    called ``name (2)``, and a note.

    :param folders: a folder or several, searched at any depth
    :param methods: the methods that are shown, in this order; by default all, in the order of a specification that lies in a
        folder (``*.yml``) or beside it under its name, else as they are found
    :param reference: the method that the others are compared with over tasks; the first by default
    :return: ``format``, ``reference``, ``tasks``, ``over_tasks``, ``notes`` (what was left out or needs to be known)
    :raises FileNotFoundError: if a folder does not exist
    :raises ReportError: if there are no results, or none of a method that was named
    """
    paths = [Path(folders)] if isinstance(folders, str | Path) else [Path(folder) for folder in folders]
    found = read_results(paths)
    notes = list(found.notes)
    if not found.results:
        raise ReportError("\n".join([f"no result.json to report in {', '.join(map(str, paths))}", *notes]))
    notes += notes_of_runs(found.results)
    grouped = group(found.results, notes)
    names = method_names(grouped, methods, paths)
    if reference is not None and reference not in names:
        raise ReportError(f"there is no result of the reference {reference}, but of {', '.join(names)}")
    tasks = []
    for (environment, steps), of_method in grouped.items():
        shown = {name: of_method[name] for name in names if name in of_method}
        if shown:
            entries = [_method_entry(name, runs) for name, runs in shown.items()]
            tasks.append({"environment": environment, "steps": steps, "methods": entries})
    _note_differences(tasks, notes)
    reference = reference or names[0]
    over_tasks = _over_tasks(tasks, names, reference, notes) if len(tasks) > 1 else []
    return {"format": FORMAT, "reference": reference, "tasks": tasks, "over_tasks": over_tasks, "notes": notes}


def _method_entry(name: str, runs: Sequence[Result]) -> dict[str, Any]:
    measures = list(dict.fromkeys(measure for run in runs for measure in run.values))
    of_runs = {measure: [run.values.get(measure) for run in runs] for measure in measures}
    return {
        "method": name,
        "algorithm": runs[0].data["algorithm"],
        "seeds": [run.seed for run in runs],
        "resumed": sum(bool(run.data.get("resumed_from")) for run in runs),
        "episode_std": float(np.median([np.std(run.returns) for run in runs])),
        "measures": _aggregated(of_runs),
        "curves": _curves(runs),
        "evaluation": _evaluation_settings(runs[0]),
    }


def _aggregated(of_runs: Mapping[str, Sequence[float | None]]) -> dict[str, dict[str, Any]]:
    """Interquartile means and intervals of many measures. The bootstrap takes those that all runs have in one go."""
    scores = {name: np.array(values, dtype=np.float64) for name, values in of_runs.items()}
    whole = [name for name, values in scores.items() if np.isfinite(values).all()]
    if not scores:
        return {}
    results: dict[str, tuple[float, float, float, int]] = {}
    if whole:
        together = np.column_stack([scores[name] for name in whole])
        for name, *ends in zip(whole, *interquartile_intervals(together), strict=True):
            results[name] = (*map(float, ends), len(together))  # type: ignore[assignment]
    for name in scores.keys() - results.keys():
        defined = scores[name][np.isfinite(scores[name])]
        if len(defined):
            ends = [float(end[0]) for end in interquartile_intervals(defined[:, None])]
            results[name] = (*ends, len(defined))  # type: ignore[assignment]
        else:
            results[name] = (np.nan, np.nan, np.nan, 0)
    return {name: {**_interval(*results[name][:3], results[name][3]), "of_runs": list(of_runs[name])} for name in of_runs}


def _interval(iqm: float, low: float, high: float, n_runs: int) -> dict[str, Any]:
    finite = [float(value) if np.isfinite(value) else None for value in (iqm, low, high)]
    return {"iqm": finite[0], "low": finite[1], "high": finite[2], "n_runs": n_runs}


def _curves(runs: Sequence[Result]) -> dict[str, Any]:
    """Interquartile means over the runs, at the steps at which each of them was measured."""
    curves: dict[str, Any] = {}
    for name in CURVES:
        of_runs = [_curve(run, name) for run in runs]
        steps = sorted(set.intersection(*(set(curve) for curve in of_runs)))
        if steps:
            ends = interquartile_intervals(np.array([[curve[step] for step in steps] for curve in of_runs]))
            curves[name] = {"timesteps": steps, **dict(zip(("iqm", "low", "high"), map(_listed, ends), strict=True))}
    return curves


def _curve(run: Result, name: str) -> dict[int, float]:
    pairs = zip(run.curves.get("timesteps", ()), run.curves.get(name, ()), strict=False)
    return {int(step): value for step, value in pairs if step is not None and value is not None}


def _listed(values: NDArray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _evaluation_settings(run: Result) -> dict[str, Any]:
    settings = run.data.get("settings") or {}
    return {"episodes": len(run.returns), **{name: settings.get(name) for name in ("deterministic", "seed", "control_rate")}}


def _note_differences(tasks: Sequence[Mapping[str, Any]], notes: list[str]) -> None:
    """What makes the rows of a table less comparable than they look."""
    for task in tasks:
        settings = {json.dumps(one["evaluation"]) for one in task["methods"]}
        if len(settings) > 1:
            notes.append(f"{task_title(task)}: the methods were evaluated in different ways: {'; '.join(sorted(settings))}")
        if len({tuple(one["seeds"]) for one in task["methods"]}) > 1:
            seeds = ", ".join(f"{one['method']} {len(one['seeds'])}" for one in task["methods"])
            notes.append(f"{task_title(task)}: the methods have different seeds (runs: {seeds})")
    environments = [task["environment"] for task in tasks]
    for environment in dict.fromkeys(environments):
        if environments.count(environment) > 1:
            steps = sorted(task["steps"] for task in tasks if task["environment"] == environment)
            notes.append(f"{environment} was run for {', '.join(map(str, steps))} steps: a task each, not pooled")


def _over_tasks(
    tasks: Sequence[Mapping[str, Any]], names: Sequence[str], reference: str, notes: list[str]
) -> list[dict[str, Any]]:
    scales = {}
    for i, task in enumerate(tasks):
        own = next((one["measures"] for one in task["methods"] if one["method"] == reference), None)
        if own is None:
            notes.append(f"{task_title(task)} is not in the table over tasks: {reference} has no run of it")
        elif not own["return"]["iqm"] or not own["sm"]["iqm"]:
            notes.append(f"{task_title(task)} is not in the table over tasks: {reference}'s return or sm is 0")
        else:
            scales[i] = (own["return"]["iqm"], own["sm"]["iqm"])
    compared: list[dict[str, Any]] = []
    for name in names if len(scales) > 1 else ():
        scores = []
        for i, (total, sm) in scales.items():
            measures = next((one["measures"] for one in tasks[i]["methods"] if one["method"] == name), None)
            if measures is not None:
                returns, sms = (np.array(measures[measure]["of_runs"]) for measure in CURVES)
                scores.append(np.column_stack((return_share(returns, total), sms / sm)))
        if scores:
            n_runs = sum(map(len, scores))
            iqm, low, high = interquartile_intervals(*scores)
            intervals = {measure: _interval(iqm[j], low[j], high[j], n_runs) for j, measure in enumerate(CURVES)}
            compared.append({"method": name, "n_tasks": len(scores), "n_runs": n_runs, **intervals})
    if len({one["n_tasks"] for one in compared}) > 1:
        notes.append("In the table over tasks, the methods differ in the tasks that they were run on")
    return compared


def return_share(total: Any, reference: float) -> Any:
    """
    A return on the scale of a reference's: 1 is the same, 0.98 has lost 2 % of the reference's absolute value. For positive
    returns that is their ratio; for negative ones a ratio would call the worse the larger.

    :param total: a return, or an array of them
    :param reference: the reference's, not 0
    :return: ``1 + (total - reference) / |reference|``
    """
    return 1.0 + (total - reference) / abs(reference)
