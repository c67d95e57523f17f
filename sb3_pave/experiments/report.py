"""
The report of a grid: results -> numbers -> tables. The pictures (:mod:`sb3_pave.experiments.pictures`) are drawn from it.

A report is plain data (dicts, lists, numbers). Its ``tasks`` have an entry for each environment and number of steps, with its
``methods``; ``over_tasks`` compares the methods over all tasks, each task on the scale of the reference method.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sb3_pave.evaluation.intervals import interquartile_intervals
from sb3_pave.evaluation.output_path import check_free
from sb3_pave.evaluation.tables import format_number
from sb3_pave.experiments.collection import Result, read_results
from sb3_pave.experiments.titles import over_tasks_title, spread_name, task_title

FORMAT = 1

#: Columns of the tables, where there are numbers for them, with what they are multiplied by
COLUMNS = {
    "return": ("return", 1.0),
    "sm": ("sm", 1.0),
    "sm_noise_0.1": ("sm, noise 0.1 σ", 1.0),
    "geometry_bound_median": ("M/μ", 1.0),
    "geometry_negative_definite_rate": ("concave states (%)", 100.0),
    "seconds_train": ("training (min)", 1.0 / 60.0),
}
CURVES = ("return", "sm")
_VARIANT = re.compile(r" \(\d+\)$")  # what ``_variant`` adds

CAPTION = "Interquartile mean over runs (seeds) and {spread}. Lower sm is smoother."
GEOMETRY_CAPTION = " M/μ bounds the actor's sensitivity; concave states are those with a negative definite ∇²_aa Q."
OVER_TASKS_CAPTION = (
    "Each run on the scale of {reference}'s interquartile mean on its task: return 1 + (R - R_ref)/|R_ref|, so that 0.98 has "
    "lost 2 %, whatever the sign; sm as a ratio. Interquartile mean over all runs of all tasks, 95 % interval of a bootstrap "
    "within tasks."
)


class ReportError(ValueError):
    """There is nothing to report, or what was asked for is not among the results."""


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
    notes += _notes_of_runs(found.results)
    grouped = _group(found.results, notes)
    names = _names(grouped, methods, paths)
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
        caption = CAPTION.format(spread=spread_name(task))
        caption += GEOMETRY_CAPTION if COLUMNS["geometry_bound_median"][0] in table else ""
        shown.append((task_title(task), caption, table))
    if report["over_tasks"]:
        caption = OVER_TASKS_CAPTION.format(reference=report["reference"])
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
        rows = [list(table.columns), ["---"] * len(table.columns), *table.itertuples(index=False, name=None)]
        parts += [f"## {title}", "\n".join("| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in rows), caption]
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


def save_report(report: Mapping[str, Any], folder: str | Path, pictures: bool = True, overwrite: bool = False) -> list[Path]:
    """
    Save as ``report.md`` (the tables, with the pictures), ``report.json`` (everything), ``measures.csv`` (a row for each task,
    method and measure), ``runs.csv`` (a row for each run) and the pictures of each task.

    :param report: a report
    :param folder: where to
    :param pictures: whether to draw
    :param overwrite: whether to replace files that exist
    :return: the files written
    :raises FileExistsError: if one of them exists
    """
    folder = Path(folder)
    drawn = {}
    if pictures:
        from sb3_pave.experiments.pictures import draw_all

        drawn = draw_all(report)
    files = [folder / name for name in ("report.md", "report.json", "measures.csv", "runs.csv")]
    figures = {folder / name: figure for of_title in drawn.values() for name, figure in of_title.items()}
    check_free([*files, *figures], overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    files[0].write_text(markdown(report, {title: list(names) for title, names in drawn.items()}), encoding="utf-8")
    files[1].write_text(json.dumps(report, allow_nan=False) + "\n", encoding="utf-8")
    measure_table(report).to_csv(files[2], index=False)
    run_table(report).to_csv(files[3], index=False)
    for path, figure in figures.items():
        figure.savefig(path)
    return [*files, *figures]


def _notes_of_runs(results: Sequence[Result]) -> list[str]:
    """What could not be measured, each once for all seeds of a method."""
    said: dict[tuple[str, str, str], list[int]] = {}
    for result in results:
        for note in result.data["evaluation"].get("notes", ()):
            said.setdefault((result.data["environment"], result.method, note), []).append(result.seed)
    return [
        f"{environment}, {method}, seed {', '.join(map(str, seeds))}: {note}"
        for (environment, method, note), seeds in said.items()
    ]


def _group(results: Sequence[Result], notes: list[str]) -> dict[tuple[str, int], dict[str, list[Result]]]:
    """Results by task and method. What has the same name in a task but was made in another way is another method."""
    variants: dict[tuple[Any, str], list[dict[str, Any]]] = {}
    grouped: dict[tuple[str, int], dict[str, list[Result]]] = {}
    for result in results:
        known = variants.setdefault((result.task, result.method), [])
        recipe = _recipe(result)
        if recipe not in known:
            known.append(recipe)
        runs = grouped.setdefault(result.task, {}).setdefault(_variant(result.method, known.index(recipe)), [])
        same = next((one for one in runs if one.seed == result.seed), None)
        if same is None:
            runs.append(result)
        else:
            notes.append(
                f"{result.path} and {same.path} are runs of {result.method} with seed {result.seed}, and differ in what a "
                "result does not tell: the first is left out"
            )
    for (task, method), known in variants.items():
        for i, other in enumerate(known[1:], 1):
            differing = [key for key in other if other[key] != known[0][key]]
            ways = " / ".join(", ".join(f"{key} {json.dumps(one[key])}" for key in differing) for one in (known[0], other))
            notes.append(f"{task[0]}: runs of {method} and {_variant(method, i)} were made in different ways: {ways}")
    for of_method in grouped.values():
        for runs in of_method.values():
            runs.sort(key=lambda run: run.seed)
    return grouped


def _recipe(result: Result) -> dict[str, Any]:
    """How a run was made, but for its seed, as far as results tell."""
    return {name: result.data.get(name) for name in ("algorithm", "hyperparameters", "conf", "settings")}


def _variant(method: str, index: int) -> str:
    return method if index == 0 else f"{method} ({index + 1})"


def _names(grouped: Mapping[Any, Mapping[str, Any]], methods: Sequence[str] | None, folders: Sequence[Path]) -> list[str]:
    found = list(dict.fromkeys(name for of_method in grouped.values() for name in of_method))
    if methods is None:
        specified = _specified_methods(folders)
        bases = {name: name if name in specified else _VARIANT.sub("", name) for name in found}
        order = {name: specified.index(base) for name, base in bases.items() if base in specified}
        return sorted(found, key=lambda name: order.get(name, len(specified)))
    unknown = [name for name in methods if name not in found]
    if unknown:
        raise ReportError(f"there is no result of {', '.join(unknown)}, but of {', '.join(found)}")
    return list(dict.fromkeys(methods))


def _specified_methods(folders: Sequence[Path]) -> list[str]:
    """Names of the methods in the specifications that lie in the folders, or have a folder's name and lie beside it."""
    import yaml

    names: dict[str, None] = {}
    for path in (path for one in folders for path in (one.parent / f"{one.name}.yml", *sorted(one.glob("*.yml")))):
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            continue
        if isinstance(content, dict) and isinstance(content.get("methods"), dict | list):
            names.update(dict.fromkeys(map(str, content["methods"])))
    return list(names)


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


def _cell(value: Mapping[str, Any] | None, factor: float, n_runs: int) -> str:
    if value is None:
        return ""
    if value["iqm"] is None:
        return "not defined"
    text = format_number(value["iqm"] * factor)
    if value["low"] is not None:
        text += f" [{format_number(value['low'] * factor)}, {format_number(value['high'] * factor)}]"
    return text if value["n_runs"] == n_runs else f"{text} ({value['n_runs']} of {n_runs} runs)"


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|")
