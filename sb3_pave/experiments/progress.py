"""How far a grid is: over all of its runs, whoever works on them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sb3_pave.experiments.results import RESULT_FILE, is_done, load_result
from sb3_pave.experiments.runs import Run
from sb3_pave.experiments.status import RunState, is_being_measured, run_state, steps_done

if TYPE_CHECKING:
    from rich.progress import Progress

# Seconds between two looks at the folder
INTERVAL = 1.0


@contextmanager
def shown_progress(runs: Sequence[Run], folder: Path, enabled: bool = True) -> Iterator[None]:
    """
    A bar over the steps of all runs with the time left, on a terminal; elsewhere a line for each run that starts. In either
    case a line for each run that ends.

    :param runs: the runs
    :param folder: folder of the grid
    :param enabled: whether to show anything
    """
    if not enabled:
        yield
        return
    bar = _bar()
    bar.disable = not bar.console.is_terminal
    lines = Lines(runs, folder, with_starts=bar.disable)
    if lines.ended:
        bar.console.print(f"{len(lines.ended)} of {len(runs)} runs are done already")
    # A run's measurement counts as one step more: without it the bar would be full, and its clock stand, before the end
    task = bar.add_task("", total=sum(run.steps + 1 for run in runs), completed=_completed(runs, folder), n_measured=0)
    closing = threading.Event()

    def look() -> None:
        while True:
            last = closing.wait(INTERVAL)
            for line in lines.new():
                bar.console.print(line, highlight=False, markup=False, soft_wrap=True)
            n_measured = sum(is_being_measured(folder / run.folder_name, run.steps) for run in runs)
            ended = f"{len(lines.ended)}/{len(runs)} runs"
            bar.update(task, completed=_completed(runs, folder), description=ended, n_measured=n_measured)
            if last:
                return

    watcher = threading.Thread(target=look, daemon=True)
    with bar:
        watcher.start()
        try:
            yield
        finally:
            closing.set()
            watcher.join()


class Lines:
    """
    A line for each run that has started or ended since the last look.

    :param runs: the runs
    :param folder: folder of the grid
    :param with_starts: whether those that start have one
    """

    def __init__(self, runs: Sequence[Run], folder: Path, with_starts: bool):
        self.runs, self.folder, self.with_starts = runs, folder, with_starts
        self.ended = {run.key for run in runs if is_done(folder / run.folder_name)}
        self.started = set(self.ended)

    def new(self) -> Iterator[str]:
        """:return: the lines"""
        for run in self.runs:
            if run.key in self.ended:
                continue
            state = run_state(self.folder / run.folder_name)
            if state is not RunState.WAITING and run.key not in self.started:
                self.started.add(run.key)
                if self.with_starts:
                    yield f"started {_name(run)} ({len(self.started)} of {len(self.runs)})"
            if state in (RunState.DONE, RunState.FAILED):
                self.ended.add(run.key)
                yield f"{len(self.ended)}/{len(self.runs)} {_line(run, state, self.folder)}"


def _bar() -> Progress:
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        Task,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Left(ProgressColumn):
        """The time left, which steps tell; while nothing but measurements is left, how many."""

        time = TimeRemainingColumn()

        def render(self, task: Task) -> Text:
            n_measured = task.fields["n_measured"]
            if n_measured and task.remaining is not None and task.remaining <= n_measured:
                return Text(f"measuring {n_measured}")
            return Text("left ") + self.time.render(task)

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), Left())
    return Progress(*columns, speed_estimate_period=900.0)


def _completed(runs: Sequence[Run], folder: Path) -> int:
    return sum(steps_done(folder / run.folder_name, run.steps) + is_done(folder / run.folder_name) for run in runs)


def _line(run: Run, state: RunState, folder: Path) -> str:
    name = _name(run)
    if state is RunState.FAILED:
        return f"{name} has failed"
    try:
        result = load_result(folder / run.folder_name / RESULT_FILE)
        episodes = result["evaluation"]["episodes"]
        measured = ", ".join(f"{measure} {_mean(episodes[measure]):.4g}" for measure in ("return", "sm"))
        return f"{name}: {measured} ({result['seconds']['train']:.0f} s of training)"
    except (KeyError, TypeError, ValueError):
        return f"{name}: done"  # what is wrong with its result is for the report to say


def _name(run: Run) -> str:
    return f"{run.environment} {run.method} seed {run.seed}"


def _mean(values: Sequence[float | None]) -> float:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else float("nan")
