"""What a benchmark ran on."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager

import stable_baselines3
import torch as th


def machine(on: str, n_threads: int | None) -> dict[str, str]:
    """
    Processor or GPU, and versions.

    :param on: the device
    :param n_threads: of PyTorch; None: as they are
    """
    device = th.device(on)
    return {
        "device": th.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": str(n_threads or th.get_num_threads()),
        "torch": th.__version__,
        "stable_baselines3": stable_baselines3.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as info:
            return next(line.split(":")[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """
    PyTorch with so many threads inside the block.

    :param number: of them; None: as they are
    """
    before = th.get_num_threads()
    if number is not None:
        th.set_num_threads(number)
    try:
        yield
    finally:
        th.set_num_threads(before)
