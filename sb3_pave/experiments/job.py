"""A job of a grid: one run, claimed, tried, and carried out wherever an engine takes it."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sb3_pave.experiments.claims import HEARTBEAT, Claim, ClaimLost
from sb3_pave.experiments.files import UnreadableFile, read_json, write_json
from sb3_pave.experiments.gpus import free_gpu
from sb3_pave.experiments.process import RunFailed, carry_out, tidy
from sb3_pave.experiments.results import is_done
from sb3_pave.experiments.runs import Run
from sb3_pave.experiments.status import FAILED_FILE
from sb3_pave.experiments.tries import TRIES

# A run is tried again twice
MAX_TRIES = 3

#: What has become of a job
State = Literal["done", "failed", "busy", "stopped", "broken"]


class _Stopped(Exception):
    """The grid is being stopped."""


@dataclass(frozen=True)
class Job:
    """
    Work on one run, wherever an engine takes it.

    :param run: the run
    :param folder: folder of the grid
    :param session: a file that is there while its runner wants it to go on
    :param gpus: the GPUs that it may take
    :param stale_after: seconds without renewal after which a claim is dead
    """

    run: Run
    folder: Path
    session: Path
    gpus: tuple[str, ...]
    stale_after: float

    def __call__(self) -> tuple[State, str]:
        """:return: what became of it, and why"""
        path = self.folder / self.run.folder_name
        try:
            with _ignoring_interrupts(), free_gpu(self.gpus, self._check_session) as environ:
                self._check_session()
                if is_done(path) and not (path / TRIES).exists():
                    return "done", ""
                claim = Claim.acquire(path, self.stale_after)
                if claim is None:
                    return "busy", ""
                try:
                    return self._try(path, claim, environ)
                finally:
                    claim.release()
        except ClaimLost:
            return "busy", ""
        except _Stopped:
            return "stopped", ""
        except OSError as error:
            # It would be the same for the others, and trying again would not help
            self.session.unlink(missing_ok=True)
            return "broken", f"{path}: {error}"
        except Exception:
            # An exception that an engine passes on would leave the other jobs running
            self.session.unlink(missing_ok=True)
            return "broken", f"{path}:\n{traceback.format_exc()}"

    def _try(self, path: Path, claim: Claim, environ: dict[str, str]) -> tuple[State, str]:
        if is_done(path):  # by the one whose claim has just ended, who may have been stopped before the end
            tidy(path)
            return "done", ""
        if (path / FAILED_FILE).exists():
            return "failed", read_json(path / FAILED_FILE)["error"]
        heartbeat = _Heartbeat(claim, self._check_session)
        errors: list[str] = []
        while len(errors) < MAX_TRIES:
            try:
                self._carry_out(path, heartbeat, environ)
                return "done", ""
            except (RunFailed, UnreadableFile) as error:
                errors.append(str(error))
        write_json(path / FAILED_FILE, {"tries": len(errors), "error": errors[-1]}, indent=1)
        return "failed", errors[-1]

    def _carry_out(self, path: Path, heartbeat: Callable[[], None], environ: dict[str, str]) -> None:
        carry_out(self.run, path, heartbeat, environ)

    def _check_session(self) -> None:
        if not self.session.exists():
            raise _Stopped


class _Heartbeat:
    """
    What keeps a run going.

    :param claim: its claim, renewed now and then
    :param check: raises if it has to stop
    """

    def __init__(self, claim: Claim, check: Callable[[], None]):
        self.claim, self.check = claim, check
        self._next = time.monotonic() + HEARTBEAT

    def __call__(self) -> None:
        self.check()
        if time.monotonic() >= self._next:
            self.claim.renew()
            self._next = time.monotonic() + HEARTBEAT


@contextlib.contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Ctrl-C reaches the processes of loky, too; the session tells them."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
