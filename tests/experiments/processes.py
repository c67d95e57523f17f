"""Looking at processes, on Linux."""

import time
from collections.abc import Callable
from pathlib import Path


def wait_for(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Until something is true, but not for ever."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    """Processes that a process has started and that run."""
    numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [number for number in numbers if is_running(number) and int(_fields(number)[1]) == pid]


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    return _fields(pid)[0] not in "ZX"


def _fields(pid: int) -> list[str]:
    """State, parent and what else the kernel says."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["X", "-1"]
