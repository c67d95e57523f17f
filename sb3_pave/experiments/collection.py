"""The results of a grid as they lie on the disk: every ``result.json`` under a folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sb3_pave.experiments.results import RESULT_FILE, load_result


@dataclass(frozen=True)
class Result:
    """
    What one finished run has left.

    :param path: its file
    :param data: the content
    :param values: every measure of the run by name, means over its episodes; None where it is not defined. Under sensor noise
        of 0.1 standard deviations ``sm`` is called ``sm_noise_0.1``; the geometry's names begin with ``geometry_``
    """

    path: Path
    data: Mapping[str, Any]
    values: Mapping[str, float | None]

    @property
    def task(self) -> tuple[str, int]:
        """Environment and training steps: runs of another length are runs of another task."""
        return self.data["environment"], self.data["steps"]

    @property
    def method(self) -> str:
        """Name of its method."""
        return self.data["method"]

    @property
    def seed(self) -> int:
        """Seed of its training."""
        return self.data["seed"]

    @property
    def curves(self) -> Mapping[str, Sequence[float | None]]:
        """What was measured while it was trained, a list for each name; ``timesteps`` says when."""
        return self.data.get("curves") or {}

    @property
    def returns(self) -> Sequence[float]:
        """Return of each episode."""
        return self.data["evaluation"]["episodes"]["return"]


@dataclass
class Results:
    """
    :param results: the whole ones, in the order of their paths
    :param notes: what was left out and why, a sentence each
    """

    results: list[Result] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_results(folders: Iterable[str | Path]) -> Results:
    """
    Read every ``result.json`` under some folders, at any depth. A damaged one is named and left out; of two with the same
    key (a folder and its copy) one counts.

    :param folders: the folders
    :return: what was read
    :raises FileNotFoundError: if a folder does not exist
    """
    found = Results()
    of_key: dict[str, Result] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not a folder")
        for path in sorted(folder.rglob(RESULT_FILE)):
            try:
                result = read_result(path)
            except ValueError as error:
                found.notes.append(str(error))
                continue
            first = of_key.setdefault(result.data["key"], result)
            if first is result:
                found.results.append(result)
            elif first.path.resolve() != path.resolve():
                found.notes.append(f"{path} is the run of {first.path} again: left out")
    return found


def read_result(path: str | Path) -> Result:
    """
    :param path: a ``result.json``
    :return: the result
    :raises ValueError: if it is damaged; the message begins with its path
    """
    path = Path(path)
    return as_result(path, load_result(path))


def as_result(path: Path, data: Mapping[str, Any]) -> Result:
    """
    :param path: a ``result.json``
    :param data: its content
    :return: the result
    :raises ValueError: if it is damaged; the message begins with its path
    """
    try:
        _check(data)
        return Result(path, data, _values(data))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is no whole result: {reason}") from error


def _check(data: Mapping[str, Any]) -> None:
    kinds = {"key": str, "environment": str, "method": str, "algorithm": str, "seed": int, "steps": int, "evaluation": dict}
    for name, kind in kinds.items():
        if not isinstance(data[name], kind):
            raise ValueError(f"{name} is {data[name]!r}")
    for name in ("return", "sm"):
        values = data["evaluation"]["episodes"][name]
        if not values or not all(isinstance(value, int | float) for value in values):
            raise ValueError(f"the episodes' {name} is {values!r}")
    curves = data.get("curves") or {}
    if curves and len({len(values) for values in [curves["timesteps"], *curves.values()]}) != 1:
        raise ValueError("its curves differ in length")


def _values(data: Mapping[str, Any]) -> dict[str, float | None]:
    evaluation = data["evaluation"]
    values = {name: _mean(episodes) for name, episodes in evaluation["episodes"].items()}
    for entry in evaluation.get("robustness") or []:
        for name, episodes in entry["episodes"].items():
            values[f"{name}_noise_{entry['noise_level']:g}"] = _mean(episodes)
    for name, value in (evaluation.get("geometry") or {}).items():
        values[f"geometry_{name}"] = None if value is None else float(value)
    for name, seconds in (data.get("seconds") or {}).items():
        values[f"seconds_{name}"] = None if seconds is None else float(seconds)
    return values


def _mean(episodes: Sequence[float | None]) -> float | None:
    defined = [float(value) for value in episodes if value is not None]
    return float(np.mean(defined)) if defined else None
