"""Claims: who works on a run. Files alone, so that machines need to share nothing but the folder."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# A claim is renewed every so many seconds and taken over when it was not for the other. File servers may show a time that is
# a minute old.
HEARTBEAT, STALE_AFTER = 10.0, 180.0


class ClaimLost(Exception):
    """Another one has taken the run over, since this one had not renewed its claim in time."""


class Claim:
    """
    A claim on a folder: a file ``claim-N``, created exclusively. The highest ``N`` counts. A dead claim is taken over by
    creating ``claim-(N+1)``, which only one can, rather than by removing it, which others may be about to do as well.

    :param path: its file
    """

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def acquire(cls, folder: Path, stale_after: float = STALE_AFTER) -> Claim | None:
        """
        :param folder: what to claim
        :param stale_after: seconds without renewal after which a claim is dead
        :return: the claim, or None if another one holds it
        :raises OSError: if the folder can't be written to
        """
        latest = _claims(folder)
        if latest and not is_dead(latest[-1], stale_after):
            return None
        before = latest[-1] if latest else None
        seen = _content(before)
        path = folder / f"claim-{_number(before) + 1}"
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return None
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({**this_process(), "token": uuid.uuid4().hex}, file)
        claim = cls(path)
        # Meanwhile the dead claim may have been taken over, finished and removed, and its number taken by another one
        overtaken = _claims(folder)[-1:] != [path]
        replaced = before is not None and before.exists() and _content(before) != seen
        if overtaken or replaced:
            path.unlink(missing_ok=True)
            return None
        return claim

    def renew(self) -> None:
        """
        :raises ClaimLost: if it is not the latest claim any more
        """
        try:
            os.utime(self.path)
        except FileNotFoundError:
            raise ClaimLost(f"{self.path} has been removed") from None
        if _claims(self.path.parent)[-1:] != [self.path]:
            raise ClaimLost(f"{self.path} has been taken over")

    def release(self) -> None:
        """Remove it, and the dead ones before it."""
        for path in _claims(self.path.parent):
            if _number(path) <= _number(self.path):
                with contextlib.suppress(OSError):
                    path.unlink()


def is_claimed(folder: Path, stale_after: float = STALE_AFTER) -> bool:
    """
    :param folder: what may be claimed
    :param stale_after: seconds without renewal after which a claim is dead
    :return: whether somebody alive holds it
    """
    latest = _claims(folder)
    return bool(latest) and not is_dead(latest[-1], stale_after)


def is_dead(path: Path, stale_after: float) -> bool:
    """
    :param path: file of a claim
    :param stale_after: seconds without renewal after which it is dead
    :return: whether its process has died, as far as this machine can tell, or has not renewed it
    """
    died = has_died(_content(path))
    if died is not None:
        return died
    with contextlib.suppress(OSError):
        return _file_time(path.parent) - path.stat().st_mtime > stale_after
    return False  # released this moment


def this_process() -> dict[str, Any]:
    """:return: what tells this process from all others"""
    return {"host": _host(), "pid": os.getpid(), "started": _started(os.getpid())}


def has_died(process: Mapping[str, Any]) -> bool | None:
    """
    :param process: what :func:`this_process` gave a process
    :return: whether it has died; None if that can't be told here
    """
    if os.name != "posix" or process.get("host") != _host():
        return None
    return not _is_alive(int(process["pid"]), process["started"])


def _claims(folder: Path) -> list[Path]:
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.name.startswith("claim-")]
    except FileNotFoundError:
        return []
    return sorted((folder / name for name in names if name[6:].isdigit()), key=_number)


def _number(path: Path | None) -> int:
    return 0 if path is None else int(path.name[6:])


def _content(path: Path | None) -> dict[str, Any]:
    """What is written in a claim; nothing if it is being written, or gone."""
    try:
        return {} if path is None else json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}


def _host() -> str:
    """Where process ids mean the same: machines, and containers on one machine, may share a host name."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _is_alive(pid: int, started: str | None) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    # The number may have been given to another process
    return _started(pid) == started


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; None where the kernel does not say. A zombie has died."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "dead" if fields[0] in "ZX" else fields[19]


def _file_time(folder: Path) -> float:
    """What time it is for the file system of a folder: clocks of machines differ."""
    probe = folder / f".now-{uuid.uuid4().hex[:8]}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
