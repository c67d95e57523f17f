"""Results: one small JSON file a run, which is all that reports and searches read."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sb3_pave.evaluation.plain_data import plain
from sb3_pave.experiments.files import UnreadableFile, read_json
from sb3_pave.experiments.runs import FORMAT, Run

RESULT_FILE = "result.json"

# What computes the numbers
PACKAGES = ("sb3-pave", "stable-baselines3", "sb3-contrib", "rl_zoo3", "torch", "numpy", "gymnasium", "mujoco", "box2d")

# Of a run's entry in a report: paths of this machine, and what is large and can be measured again
LEFT_OUT = ("model", "trace", "training", "surface")

# Significant digits that are kept: far more than episodes and seeds leave certain
DIGITS = 6


def make_result(
    run: Run,
    trained: Mapping[str, Any],
    report: Mapping[str, Any],
    tries: int,
    resumed_from: Sequence[int],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """
    :param run: the run
    :param trained: what :class:`sb3_pave.experiments.callback.RunCallback` has left: ``device``, ``curves``
    :param report: the report of ``sb3-pave evaluate`` on its agent
    :param tries: how often its training was begun
    :param resumed_from: steps at which it was taken up again
    :param seconds: how long it took to ``train``, without what was lost, and to ``evaluate``
    :return: the content of ``result.json``
    """
    (measured,) = report["runs"]
    evaluation = {key: value for key, value in measured.items() if key not in LEFT_OUT}
    evaluation["run"] = run.folder_name
    evaluation["notes"] = list(report.get("notes", ()))
    curves = _columns(trained["curves"])
    numbers = {"seconds": seconds, "evaluation": evaluation, "settings": report["settings"], "curves": curves}
    return {
        "format": FORMAT,
        "key": run.key,
        **{name: getattr(run, name) for name in ("environment", "method", "algorithm", "seed", "steps")},
        "hyperparameters": plain(run.hyperparameters),
        "conf": None if run.conf is None else yaml.safe_load(run.conf),
        "tries": tries,
        "resumed_from": list(resumed_from),
        "versions": _versions(),
        "device": trained["device"],
        **plain(numbers, DIGITS),
    }


def is_done(folder: Path) -> bool:
    """
    :param folder: folder of a run
    :return: whether its result is there
    """
    return (folder / RESULT_FILE).is_file()


def set_damaged_aside(folder: Path) -> None:
    """
    Give a result that can't be read another name, so that its run counts as not done.

    :param folder: folder of a run
    """
    path = folder / RESULT_FILE
    try:
        if path.is_file():
            read_json(path)
    except UnreadableFile:
        os.replace(path, path.with_name(f"{RESULT_FILE}.damaged"))


def load_result(path: Path) -> dict[str, Any]:
    """
    :param path: a ``result.json``
    :return: its content
    :raises ValueError: if it can't be read or is of another format
    """
    result = read_json(path)
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise ValueError(f"{path} is not a result of format {FORMAT}")
    return result


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Of a dict for each evaluation, a list for each key, None where one does not have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
