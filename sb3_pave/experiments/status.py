"""What state the runs in a folder are in, read from its files."""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sb3_pave.experiments.claims import is_claimed
from sb3_pave.experiments.files import UnreadableFile, read_json
from sb3_pave.experiments.process import RUN_FILE
from sb3_pave.experiments.results import RESULT_FILE, is_done, load_result
from sb3_pave.experiments.tries import STEPS_FILE, tries

FAILED_FILE = "failed.json"


class RunState(enum.Enum):
    """State of a run."""

    DONE = "done"
    RUNNING = "running"
    FAILED = "failed"
    WAITING = "waiting"


@dataclass(frozen=True)
class RunStatus:
    """
    :param run: fields of the run: ``environment``, ``method``, ``seed``, ``steps`` and others
    :param state: its state
    :param steps: how many steps of it are done
    :param folder: its folder
    :param error: why it has failed; empty otherwise
    """

    run: dict[str, Any]
    state: RunState
    steps: int
    folder: Path
    error: str = ""


def grid_status(folder: str | os.PathLike) -> list[RunStatus]:
    """
    :param folder: folder of a grid
    :return: its runs, in the order of their folders' names
    :raises ValueError: if there is no such folder or no run in it
    """
    if not Path(folder).is_dir():
        raise ValueError(f"{folder} is not a folder of a grid: {'a file' if Path(folder).exists() else 'there is none'}")
    found = []
    for path in sorted(Path(folder).iterdir()):
        if (path / RUN_FILE).is_file() or is_done(path):
            found.append(_status(path))
    if not found:
        raise ValueError(f"{folder} is not a folder of a grid: no run lies in it")
    return found


def _status(path: Path) -> RunStatus:
    try:
        run = load_result(path / RESULT_FILE) if is_done(path) else read_json(path / RUN_FILE)
        state = run_state(path)
        error = read_json(path / FAILED_FILE)["error"] if state is RunState.FAILED else ""
    except UnreadableFile as damage:
        # It must not hide the other runs; experiment run does this one again
        run, state, error = _planned(path), RunState.FAILED, str(damage)
    return RunStatus(run, state, steps_done(path, run["steps"]), path, error)


def _planned(path: Path) -> dict[str, Any]:
    """What was to be done in a folder, or no more than its name."""
    try:
        return read_json(path / RUN_FILE)
    except UnreadableFile:
        return {"environment": path.name, "method": "", "steps": 0}


def run_state(folder: Path) -> RunState:
    """
    :param folder: folder of a run
    :return: its state
    """
    if is_done(folder):
        return RunState.DONE
    if is_claimed(folder):
        return RunState.RUNNING
    return RunState.FAILED if (folder / FAILED_FILE).is_file() else RunState.WAITING


def is_being_measured(folder: Path, steps: int) -> bool:
    """
    :param folder: folder of a run
    :param steps: all of its steps
    :return: whether it has been trained and is being measured
    """
    return run_state(folder) is RunState.RUNNING and steps_done(folder, steps) >= steps


def steps_done(folder: Path, steps: int) -> int:
    """
    :param folder: folder of a run
    :param steps: all of its steps
    :return: how many are done, as its newest try has noted last
    """
    if is_done(folder):
        return steps
    if not (begun := tries(folder)):
        return 0
    try:
        return min(int((begun[-1] / STEPS_FILE).read_text() or 0), steps)
    except (OSError, ValueError):
        return 0
