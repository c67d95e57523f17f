"""The devices that runs are given; one run at a time on a GPU: eight on one are no faster in sum than one after the other."""

from __future__ import annotations

import getpass
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

DEVICES = ("auto", "cpu", "cuda", "mps")

# Seconds between two looks for a free GPU
POLL_INTERVAL = 0.5


def is_here(device: str) -> bool:
    """
    :param device: auto, cpu, cuda or mps
    :return: whether PyTorch finds it on this machine; nothing is started on it
    """
    import torch as th

    found: dict[str, Callable[[], bool]] = {"cuda": th.cuda.is_available, "mps": th.backends.mps.is_available}
    return device not in found or found[device]()


def visible_gpus() -> tuple[str, ...]:
    """:return: the GPUs that PyTorch sees on this machine, as ``CUDA_VISIBLE_DEVICES`` names them"""
    import torch as th

    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    numbered = [str(i) for i in range(th.cuda.device_count())]
    return tuple(named[: len(numbered)] or numbered)


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
