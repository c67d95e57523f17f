"""How far a grid is: over all of its runs, whoever works on them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sb3_pave.experiments.results import RESULT_FILE, is_done
from sb3_pave.experiments.runs import Run
from sb3_pave.experiments.status import RunState, run_state, steps_done

# Seconds between two looks at the folder
INTERVAL = 1.0


@contextmanager
def shown_progress(runs: Sequence[Run], folder: Path, enabled: bool = True) -> Iterator[None]:
    """
    A bar over the steps of all runs with the time left, on a terminal; elsewhere, and above the bar, a line for each run
    that ends.

    :param runs: the runs
    :param folder: folder of the grid
    :param enabled: whether to show anything
    """
    if not enabled:
        yield
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("left"))
    bar = Progress(*columns, TimeRemainingColumn(), speed_estimate_period=900.0)
    bar.disable = not bar.console.is_terminal
    ended = {run.key for run in runs if is_done(folder / run.folder_name)}
    if ended:
        bar.console.print(f"{len(ended)} of {len(runs)} runs are done already")
    task = bar.add_task("", total=sum(run.steps for run in runs), completed=_completed(runs, folder))
    closing = threading.Event()

    def look() -> None:
        while True:
            last = closing.wait(INTERVAL)
            for run in runs:
                state = run_state(folder / run.folder_name)
                if run.key not in ended and state in (RunState.DONE, RunState.FAILED):
                    ended.add(run.key)
                    bar.console.print(f"{len(ended)}/{len(runs)} {_line(run, state, folder)}", highlight=False, markup=False)
            bar.update(task, completed=_completed(runs, folder), description=f"{len(ended)}/{len(runs)} runs")
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


def _completed(runs: Sequence[Run], folder: Path) -> int:
    return sum(steps_done(folder / run.folder_name, run.steps) for run in runs)


def _line(run: Run, state: RunState, folder: Path) -> str:
    from sb3_pave.experiments.results import load_result

    name = f"{run.environment} {run.method} seed {run.seed}"
    if state is RunState.FAILED:
        return f"{name} has failed"
    try:
        result = load_result(folder / run.folder_name / RESULT_FILE)
        episodes = result["evaluation"]["episodes"]
        measured = ", ".join(f"{measure} {_mean(episodes[measure]):.4g}" for measure in ("return", "sm"))
        return f"{name}: {measured} ({result['seconds']['train']:.0f} s of training)"
    except (KeyError, TypeError, ValueError):
        return f"{name}: done"  # what is wrong with its result is for the report to say


def _mean(values: Sequence[float | None]) -> float:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else float("nan")
