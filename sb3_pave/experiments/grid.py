"""Running the runs of a grid: the folder is the queue, the engine only supplies processes."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from sb3_pave.experiments.backends import check_backend, parallel
from sb3_pave.experiments.claims import STALE_AFTER, has_died, is_claimed, this_process
from sb3_pave.experiments.files import UnreadableFile, read_json, write_json
from sb3_pave.experiments.gpus import is_here, visible_gpus
from sb3_pave.experiments.job import Job, State
from sb3_pave.experiments.process import RUN_FILE
from sb3_pave.experiments.progress import shown_progress
from sb3_pave.experiments.results import is_done, set_damaged_aside
from sb3_pave.experiments.runs import Run
from sb3_pave.experiments.status import FAILED_FILE

if TYPE_CHECKING:
    import joblib

# Seconds between two looks at what others are working on
POLL_INTERVAL = 1.0


class GridError(Exception):
    """The folder of a grid can't be written to, or a backend has failed. What was done before is found again."""


@dataclass
class Outcome:
    """
    What has become of the runs.

    :param done: runs that have a result
    :param failed: runs that have failed in each of their tries
    :param errors: why, by the run's key
    """

    done: list[Run] = field(default_factory=list)
    failed: list[Run] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)


def run_grid(
    runs: Sequence[Run],
    folder: str | os.PathLike,
    n_jobs: int = 1,
    backend: str = "threading",
    gpus: Sequence[str | int] = (),
    progress: bool = True,
    address: str | None = None,
    stale_after: float = STALE_AFTER,
) -> Outcome:
    """
    Train and measure runs that have no result yet. Others may work on the same folder, on this machine and elsewhere: they
    share the runs, and each waits for all.

    :param runs: the runs
    :param folder: where they go, a folder for each
    :param n_jobs: runs at a time; on GPUs not more than there are of them
    :param backend: ``threading``, ``loky``, ``dask`` or ``ray``
    :param gpus: GPUs, as ``CUDA_VISIBLE_DEVICES`` names them; each has one run at a time. By default those that this machine
        has, unless all runs are for the CPU
    :param progress: whether to say how far they are
    :param address: address of a dask scheduler or a Ray cluster; None starts one on this machine
    :param stale_after: seconds without renewal after which a claim of another machine is dead
    :return: which are done and which have failed
    :raises GridError: if the folder can't be written to, or the backend has failed
    :raises ValueError: if an argument is out of its range, two runs are the same, or this machine has no such device
    :raises ModuleNotFoundError: if a package of the backend is missing; the message says what to install
    :raises KeyboardInterrupt: when interrupted or terminated; the folder goes on where it was
    """
    if n_jobs < 1:
        raise ValueError(f"n_jobs must be at least 1; got {n_jobs}")
    if len({run.key for run in runs}) < len(runs):
        raise ValueError("two of the runs are the same")
    check_backend(backend, address)
    for device in sorted({run.device for run in runs}):
        # SB3 would train on the CPU without a word. A cluster has machines of its own
        if address is None and not is_here(device):
            raise ValueError(f"device: PyTorch finds no {device} on this machine; auto takes what is there")
    folder = Path(folder).absolute()
    gpu_names = tuple(str(gpu) for gpu in gpus)
    if not gpu_names and any(run.device != "cpu" for run in runs):
        gpu_names = visible_gpus()
    if gpu_names and address is None:
        n_jobs = min(n_jobs, len(gpu_names))
    session = _prepare(runs, folder)
    outcome = Outcome()
    pending = list(runs)
    try:
        with _stopped_by_signals(session), shown_progress(runs, folder, enabled=progress):
            with parallel(backend, n_jobs, address) as engine:
                while pending:
                    jobs = [Job(run, folder, session, gpu_names, stale_after) for run in pending]
                    states = _run(engine, jobs, session)
                    pending = _sort(pending, states, outcome)
                    if pending:
                        _wait(pending, folder, session, stale_after)
    finally:
        session.unlink(missing_ok=True)
    return outcome


def _prepare(runs: Sequence[Run], folder: Path) -> Path:
    """Write down what is to be done; the session's file."""
    try:
        for run in runs:
            path = folder / run.folder_name
            path.mkdir(parents=True, exist_ok=True)
            set_damaged_aside(path)
            if is_done(path):
                continue
            if not _is_readable(path / RUN_FILE):
                write_json(path / RUN_FILE, {"key": run.key, **run.to_dict()}, indent=1)
            # Whoever starts the grid again wants it to be tried again
            if not is_claimed(path):
                (path / FAILED_FILE).unlink(missing_ok=True)
        session = folder / f".runner-{uuid.uuid4().hex}"
        for other in folder.glob(".runner-*"):
            with contextlib.suppress(ValueError):  # it has ended meanwhile
                if has_died(read_json(other)):
                    other.unlink(missing_ok=True)
        write_json(session, this_process())
    except OSError as error:
        raise GridError(f"{folder} can't be written to: {error}") from error
    return session


def _is_readable(path: Path) -> bool:
    with contextlib.suppress(UnreadableFile):
        return bool(read_json(path))
    return False


def _run(engine: joblib.Parallel, jobs: Sequence[Job], session: Path) -> list[tuple[State, str]]:
    import joblib

    try:
        return engine(joblib.delayed(job.__call__)() for job in jobs)
    except Exception as error:  # of the engine: a job says what has become of it
        if not session.exists():  # Ctrl-C ends idle processes of an engine, too
            raise KeyboardInterrupt from None
        why = f"{type(error).__name__}: {error}".strip()
        raise GridError(f"the backend has failed ({why}). What was done is kept; run it again to go on") from error


def _sort(pending: Sequence[Run], states: Sequence[tuple[State, str]], outcome: Outcome) -> list[Run]:
    """Put runs where they belong; those that others are working on."""
    for state, why in states:
        if state == "broken":
            raise GridError(f"{why}. What was done is kept; run it again when that is mended")
    if any(state == "stopped" for state, _ in states):
        raise KeyboardInterrupt
    for run, (state, why) in zip(pending, states, strict=True):
        if state == "done":
            outcome.done.append(run)
        elif state == "failed":
            outcome.failed.append(run)
            outcome.errors[run.key] = why
    return [run for run, (state, _) in zip(pending, states, strict=True) if state == "busy"]


def _wait(pending: Sequence[Run], folder: Path, session: Path, stale_after: float) -> None:
    """Until one of those that others work on is done, or free."""
    while session.exists():
        for run in pending:
            if is_done(folder / run.folder_name) or not is_claimed(folder / run.folder_name, stale_after):
                return
        time.sleep(POLL_INTERVAL)
    raise KeyboardInterrupt


@contextlib.contextmanager
def _stopped_by_signals(session: Path) -> Iterator[None]:
    """
    Ctrl-C and SIGTERM end the session, so that jobs end their processes and give their claims back; a second one ends this
    process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if not session.exists():
            raise KeyboardInterrupt
        session.unlink(missing_ok=True)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
