"""The machine that times: what it is, how fast its matrix products are, how many threads they have."""

import platform
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import stable_baselines3
import torch as th
from torch import nn

from sb3_pave.benchmark.workload import Workload
from sb3_pave.fast.matmul import product


def matmul_gflops(model: Any, workload: Workload, repetitions: int = 50) -> float:
    """
    Rate of a hidden layer's product on a batch, by the fastest library that a variant uses; the median of several.

    :param model: the agent whose critic's largest layer is taken
    :param workload: the batch
    :param repetitions: how many products
    """
    shapes = [layer.weight for layer in model.critic.modules() if isinstance(layer, nn.Linear)]
    weight = max(shapes, key=lambda weight: weight.numel()).detach()
    rows = th.randn(3 * workload.batch_size, weight.shape[1], device=weight.device)
    seconds = []
    for _ in range(repetitions):
        begin = time.perf_counter()
        product(rows[None], weight.T[None])
        if weight.is_cuda:
            th.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return 2 * len(rows) * weight.numel() / statistics.median(seconds) / 1e9


def machine(workload: Workload) -> dict[str, str]:
    """
    Processor or GPU, threads, and versions.

    :param workload: what is timed on it
    """
    device = th.device(workload.device)
    return {
        "device": th.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": str(workload.threads or th.get_num_threads()),
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
def torch_threads(threads: int | None) -> Iterator[None]:
    """
    So many threads of PyTorch in this context.

    :param threads: None: as they are
    """
    before = th.get_num_threads()
    if threads is not None:
        th.set_num_threads(threads)
    try:
        yield
    finally:
        th.set_num_threads(before)
