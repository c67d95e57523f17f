"""Memory of a training run, and its growth."""

import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch as th

from sb3_pave.benchmark.machine import threads
from sb3_pave.benchmark.workload import Variant, Workload, make_model


def memory_mb(
    workload: Workload, variant: Variant, updates: int, progress: Callable[[str], None]
) -> tuple[float, float] | tuple[None, None]:
    """
    How much memory a training run takes, in a process of its own (on a GPU: the device's).

    :param workload: its networks and batch
    :param variant: what is trained
    :param updates: so many
    :param progress: told what is measured
    :return: the peak, and how much more was held at the end than after a tenth of the updates, in MB; None where the platform
        does not tell, or the process was killed
    """
    progress(f"memory: {variant.name}")
    if th.device(workload.device).type == "cuda":
        return _train_and_read_memory(workload, variant, updates)
    if sys.platform == "win32":
        return None, None
    # The peak of a process never falls again: each variant gets its own
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_train_and_read_memory, workload, variant, updates).result()
        except BrokenProcessPool:  # killed, for its memory say: the rest was measured
            return None, None


def _train_and_read_memory(workload: Workload, variant: Variant, updates: int) -> tuple[float, float]:
    """Peak of a training run, and what it held more at its end than after a tenth of it."""
    with threads(workload.threads):
        model: Any = make_model(workload, variant)
        on_cuda = model.device.type == "cuda"
        if on_cuda:
            th.cuda.reset_peak_memory_stats(model.device)
        held = []
        for part in (updates // 10, updates - updates // 10):
            for _ in range(part):
                # As SB3 trains after each environment step
                model.train(gradient_steps=1, batch_size=workload.batch_size)
            held.append(th.cuda.memory_allocated(model.device) / 2**20 if on_cuda else _resident_mb("VmRSS"))
    peak = th.cuda.max_memory_allocated(model.device) / 2**20 if on_cuda else _resident_mb("VmHWM")
    return peak, held[1] - held[0]


def _resident_mb(field: str) -> float:
    """Of this process: ``VmHWM``, its peak, or ``VmRSS``, what it holds now (its peak where the system does not say)."""
    try:
        # On Linux getrusage() gives the parent's peak where that was higher
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(field)) / 2**10
    except (OSError, StopIteration):
        import resource  # not on Windows

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
