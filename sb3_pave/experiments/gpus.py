"""One run at a time on a GPU: eight on one are no faster in sum than one after the other."""

from __future__ import annotations

import getpass
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# Seconds between two looks for a free GPU
POLL_INTERVAL = 0.5


@contextmanager
def free_gpu(gpus: Sequence[str], waiting: Callable[[], None]) -> Iterator[dict[str, str]]:
    """
    Take a GPU of this machine for one run. The lock is the system's: it goes with the process that holds it.

    :param gpus: the GPUs, as ``CUDA_VISIBLE_DEVICES`` names them; none to take whatever the process sees
    :param waiting: called while all are in use
    :return: what to add to the environment of the run
    """
    if not gpus:
        yield {}
        return
    from filelock import FileLock, Timeout

    folder = Path(tempfile.gettempdir()) / f"sb3-pave-gpus-{getpass.getuser()}"
    folder.mkdir(exist_ok=True)
    locks = {gpu: FileLock(folder / f"{gpu}.lock") for gpu in gpus}
    while True:
        for gpu, lock in locks.items():
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                yield {"CUDA_VISIBLE_DEVICES": gpu}
            finally:
                lock.release()
            return
        waiting()
        time.sleep(POLL_INTERVAL)
