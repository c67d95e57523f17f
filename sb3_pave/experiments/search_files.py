"""What a search leaves in its folder: its front as a table and a picture, and all of it as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from sb3_pave.evaluation.tables import format_number, markdown_table
from sb3_pave.experiments.files import read_json, write_json
from sb3_pave.experiments.front import Trial, pareto_front


def front_table(searched: Mapping[str, Any]) -> pd.DataFrame:
    """
    :param searched: a search, as :func:`sb3_pave.experiments.search_results.describe` has it
    :return: its front as text: trial, return and ``sm`` (mean over runs, and their range), hyperparameters; the plain agent
        last
    """
    front = pareto_front(searched["trials"])
    names = list(dict.fromkeys(name for trial in front for name in trial["hyperparameters"]))
    rows = []
    for trial in front:
        row = {"trial": str(trial["number"]), "return": _cell(trial, "return"), "sm": _cell(trial, "sm")}
        rows.append({**row, **{name: _text(trial["hyperparameters"].get(name)) for name in names}})
    if searched["plain"] is not None:
        reached = {name: format_number(searched["plain"][name]) for name in ("return", "sm")}
        rows.append({"trial": "plain", **reached, **dict.fromkeys(names, "")})
    return pd.DataFrame(rows, columns=["trial", "return", "sm", *names])


def front_caption(searched: Mapping[str, Any]) -> str:
    """
    :param searched: a search
    :return: what its table shows
    """
    tasks = ", ".join(f"{name} ({steps} steps)" for name, steps in searched["environments"].items())
    n_failed = f", {searched['n_failed']} failed" if searched["n_failed"] else ""
    least = searched["least_return"]
    constraint = "" if least is None else f" Feasible from a return of {format_number(least)} on."
    return (
        f"{searched['algorithm']} on {tasks}: Pareto front of {len(searched['trials'])} trials{n_failed}, mean over "
        f"{searched['n_runs']} run(s) each and their range.{constraint} Chosen among many, these numbers are too good: train "
        "the chosen one with other seeds."
    )


def save_outcome(searched: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """
    Write ``search.json`` (everything), ``front.md``, ``front.csv`` and ``front.png``, in place of those of before: the search
    has gone on since.

    :param searched: a search
    :param folder: its folder
    :return: the files written
    :raises ValueError: if no trial has a result, and the files of before tell of some that had
    """
    folder = Path(folder)
    if not searched["trials"] and (n_before := _n_saved_trials(folder / "search.json")):
        raise ValueError(
            f"no trial of this search has a result, and the tables in {folder} are of {n_before} that had: they stay as they "
            "are"
        )
    table, files = front_table(searched), [folder / name for name in ("search.json", "front.md", "front.csv", "front.png")]
    write_json(files[0], searched, indent=1)
    lines = markdown_table(table)
    if not searched["trials"]:
        files.pop()
    else:
        from sb3_pave.experiments.pictures import search_front  # matplotlib

        search_front(searched).savefig(files[-1])
        lines += "\n\n![Pareto front](front.png)"
    files[1].write_text(f"{lines}\n\n{front_caption(searched)}\n", encoding="utf-8")
    table.to_csv(files[2], index=False)
    return files


def _n_saved_trials(path: Path) -> int:
    if not path.is_file():
        return 0
    saved = read_json(path)
    return len(saved.get("trials", ())) if isinstance(saved, dict) else 0


def _cell(trial: Trial, name: str) -> str:
    of_runs, text = trial[f"{name}s"], format_number(trial[name])
    return text if len(of_runs) == 1 else f"{text} [{format_number(min(of_runs))}, {format_number(max(of_runs))}]"


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
