"""Results by task and method, and the order in which methods are shown."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sb3_pave.experiments.collection import Result

_VARIANT = re.compile(r" \(\d+\)$")  # what ``_variant`` adds


class ReportError(ValueError):
    """There is nothing to report, or what was asked for is not among the results."""


def notes_of_runs(results: Sequence[Result]) -> list[str]:
    """
    :param results: results of several runs
    :return: what could not be measured, each once for all seeds of a method
    """
    said: dict[tuple[str, str, str], list[int]] = {}
    for result in results:
        for note in result.data["evaluation"].get("notes", ()):
            said.setdefault((result.data["environment"], result.method, note), []).append(result.seed)
    return [
        f"{environment}, {method}, seed {', '.join(map(str, seeds))}: {note}"
        for (environment, method, note), seeds in said.items()
    ]


def group(results: Sequence[Result], notes: list[str]) -> dict[tuple[str, int], dict[str, list[Result]]]:
    """
    Results by task and method. What has the same name in a task but was made in another way is another method.

    :param results: results of several runs
    :param notes: gets a sentence on each such method, and on runs that are left out
    :return: by task (environment and steps) and name of the method, its results in the order of their seeds
    """
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


def method_names(
    grouped: Mapping[Any, Mapping[str, Any]], methods: Sequence[str] | None, folders: Sequence[Path]
) -> list[str]:
    """
    The methods of a report in its order.

    :param grouped: tasks to methods to results
    :param methods: those that are asked for; None: all, in the order of the specifications that are found
    :param folders: of the results
    :raises ReportError: if there is no result of one that is asked for
    """
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
    names: dict[str, None] = {}
    for path in (path for one in folders for path in (one.parent / f"{one.name}.yml", *sorted(one.glob("*.yml")))):
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            continue
        if isinstance(content, dict) and isinstance(content.get("methods"), dict | list):
            names.update(dict.fromkeys(map(str, content["methods"])))
    return list(names)
