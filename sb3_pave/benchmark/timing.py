"""Time of one gradient step: PAVE's ways of doing it against the plain host, interleaved in one process."""

import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch as th
from torch import nn

from sb3_pave.benchmark.flops import gradient_step_flops
from sb3_pave.benchmark.machine import machine, threads
from sb3_pave.benchmark.memory import memory_mb
from sb3_pave.benchmark.workload import HOST, Variant, Workload, default_variants, make_model
from sb3_pave.fast.matmul import product

_UPDATES_ON_CUDA = 10  # of a block, at least
_LEARNING_ROUNDS = 3
_PRODUCTS = 50  # that the machine's rate is measured by


@dataclass(frozen=True)
class Timing:
    """
    A variant's figures; quartiles are (25 %, 50 %, 75 %).

    :param variant: its name
    :param ms: quartiles of the time of one gradient step in milliseconds
    :param ratio: quartiles of its ratio to the host's step of the same round
    :param loss: TD loss and optimised loss of the first update, from the host's initial parameters
    :param floor_ms: time of the indispensable matrix products at the measured rate; None where they are not counted
    :param first_update_s: time of the first update, compilation included, in seconds
    :param peak_memory_mb: peak resident memory of a process of its own (CPU), or peak allocation (CUDA)
    :param memory_growth_mb: what that process held more after all of its updates than after the first tenth of them
    :param env_steps_per_s: quartiles of the environment steps per second of ``learn()``
    """

    variant: str
    ms: tuple[float, float, float]
    ratio: tuple[float, float, float]
    loss: tuple[float, float]
    floor_ms: float | None
    first_update_s: float
    peak_memory_mb: float | None = None
    memory_growth_mb: float | None = None
    env_steps_per_s: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Report:
    """
    :param workload: what was timed
    :param repetitions: timed blocks of a variant
    :param updates: gradient steps of a block
    :param memory_updates: gradient steps over which memory was measured
    :param gflops: the measured matrix-multiplication rate
    :param machine: processor or GPU, and versions
    :param timings: one per variant, the host first
    """

    workload: Workload
    repetitions: int
    updates: int
    memory_updates: int
    gflops: float
    machine: dict[str, str]
    timings: list[Timing]

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


class DifferentLosses(RuntimeError):
    """Variants that do not compute the same losses can't be compared."""


def benchmark(
    workload: Workload,
    variants: Sequence[Variant] | None = None,
    *,
    repetitions: int = 50,
    warmup: int = 5,
    memory_updates: int = 20,
    learn_steps: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """
    Time a gradient step of each variant, on the same batches and from the same parameters.

    Each round draws batches and times a block of ``train()`` calls of every variant on them, in random order, so that whatever
    else the machine does falls on all of them alike.

    :param workload: networks, batch and device
    :param variants: what to compare; the host is added where it is missing
    :param repetitions: timed rounds
    :param warmup: rounds before them (compilation, capture, caches)
    :param memory_updates: gradient steps over which each variant's memory is measured, on the CPU in a process of its own;
        0: leave it out
    :param learn_steps: environment steps of each of three rounds of ``learn()``; 0: leave it out
    :param progress: called with a line of text as the work proceeds
    :raises DifferentLosses: if the variants do not compute the same losses
    """
    chosen = [HOST, *(v for v in variants or default_variants(workload) if v != HOST)]
    with threads(workload.threads):
        models, losses, first_update_s = _first_updates(workload, chosen, progress)
        # As many as it takes until each kind of update was timed in its proportion
        updates = math.lcm(getattr(models[HOST.name], "policy_delay", 1), *(v.interval for v in chosen))
        if workload.device.startswith("cuda"):
            # A step takes less there than what other variants have driven out of the processor's caches
            updates *= -(-_UPDATES_ON_CUDA // updates)
        seconds = _time_blocks(models, workload, updates, repetitions, warmup, progress)
        gflops = _matmul_gflops(models[HOST.name], workload)
        learned = _time_learning(workload, chosen, learn_steps, progress) if learn_steps else {}
        memory = {v.name: memory_mb(workload, v, memory_updates, progress) for v in chosen if memory_updates}
    timings = []
    for variant in chosen:
        own, host = seconds[variant.name], seconds[HOST.name]
        peak, growth = memory.get(variant.name, (None, None))
        timings.append(
            Timing(
                variant.name,
                ms=_quartiles([1000 * s for s in own]),
                ratio=_quartiles([s / h for s, h in zip(own, host, strict=True)]),
                loss=losses[variant.name],
                floor_ms=_floor_ms(models[variant.name], workload, variant, gflops),
                first_update_s=first_update_s[variant.name],
                peak_memory_mb=peak,
                memory_growth_mb=growth,
                env_steps_per_s=learned.get(variant.name),
            )
        )
    return Report(workload, repetitions, updates, memory_updates, gflops, machine(workload.device, workload.threads), timings)


def _first_updates(
    workload: Workload, variants: Sequence[Variant], progress: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, tuple[float, float]], dict[str, float]]:
    """Agents with the host's parameters and buffer, the losses of their first update, and its time in seconds."""
    models: dict[str, Any] = {}
    losses, seconds = {}, {}
    for variant in variants:
        progress(f"first update: {variant.name}")
        model = models[variant.name] = make_model(workload, variant)
        if variant == HOST:
            initial = {name: value.clone() for name, value in model.policy.state_dict().items()}
        model.policy.load_state_dict(initial)
        model.replay_buffer = models[HOST.name].replay_buffer
        if variant.interval > 1:
            # To an update that has the terms
            model._n_updates = variant.interval - 1
        _seed(workload.seed)
        begin = time.perf_counter()
        model.train(gradient_steps=1, batch_size=workload.batch_size)
        logged = model.logger.name_to_value
        losses[variant.name] = (logged.get("train/td_loss", logged["train/critic_loss"]), logged["train/critic_loss"])
        seconds[variant.name] = time.perf_counter() - begin
    _compare_losses(variants, losses)
    return models, losses, seconds


def _compare_losses(variants: Sequence[Variant], losses: dict[str, tuple[float, float]]) -> None:
    """
    The TD loss is the same for all (the field's draws come after the target's), and so are PAVE's terms where the subset of
    the batch is; in every k-th update they count k times.
    """
    td_loss = losses[HOST.name][0]
    sums: dict[Any, tuple[str, float]] = {}
    for variant in variants:
        ours, critic_loss = losses[variant.name]
        if not np.isclose(ours, td_loss, rtol=1e-4):
            raise DifferentLosses(f"{variant.name} computes a TD loss of {ours}, the host one of {td_loss} on the same batch.")
        if variant.pave:
            on_average = ours + (critic_loss - ours) / variant.interval
            alike = (variant.has_terms, variant.kwargs.get("pave_batch_size"))
            other, expected = sums.setdefault(alike, (variant.name, on_average))
            if not np.isclose(on_average, expected, rtol=1e-4):
                raise DifferentLosses(f"{variant.name} optimises {on_average}, {other} {expected} on the same batch.")


def _time_blocks(
    models: dict[str, Any], workload: Workload, updates: int, repetitions: int, warmup: int, progress: Callable[[str], None]
) -> dict[str, list[float]]:
    """Seconds per gradient step of each variant, one entry a round."""
    order = random.Random(workload.seed)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for i in range(warmup + repetitions):
        progress(f"round {i + 1} of {warmup + repetitions}")
        for name in order.sample(list(models), len(models)):
            _seed(workload.seed + i)
            elapsed = _time_block(models[name], workload, updates)
            if i >= warmup:
                seconds[name].append(elapsed / updates)
    return seconds


def _time_block(model: Any, workload: Workload, updates: int) -> float:
    """Seconds of calls of ``train()`` with one gradient step each, as TD3 and SAC make them by default."""
    begin = time.perf_counter()
    for _ in range(updates):
        model.train(gradient_steps=1, batch_size=workload.batch_size)
        if model.device.type == "cuda":
            # As acting does, which needs the actor
            th.cuda.synchronize(model.device)
    return time.perf_counter() - begin


def _time_learning(
    workload: Workload, variants: Sequence[Variant], steps: int, progress: Callable[[str], None]
) -> dict[str, tuple[float, float, float]]:
    """Quartiles of the environment steps per second of ``learn()``, interleaved."""
    models = {variant.name: make_model(workload, variant) for variant in variants}
    rates: dict[str, list[float]] = {name: [] for name in models}
    for i in range(_LEARNING_ROUNDS):
        for name in random.Random(workload.seed + i).sample(list(models), len(models)):
            progress(f"learning, round {i + 1} of {_LEARNING_ROUNDS}: {name}")
            model = models[name]
            model.learning_starts = 0
            before = model.num_timesteps
            begin = time.perf_counter()
            model.learn(steps, reset_num_timesteps=False)
            rates[name].append((model.num_timesteps - before) / (time.perf_counter() - begin))
    return {name: _quartiles(values) for name, values in rates.items()}


def _floor_ms(model: Any, workload: Workload, variant: Variant, gflops: float) -> float | None:
    if variant.method is not None:
        return None
    rows = variant.kwargs.get("pave_batch_size", workload.batch_size) if variant.has_terms else 0
    of_kinds = [gradient_step_flops(model, workload.batch_size, k) for k in [rows, *[0] * (variant.interval - 1)]]
    totals = [flops.total for flops in of_kinds if flops is not None]
    return statistics.mean(totals) / gflops / 1e6 if totals else None


def _matmul_gflops(model: Any, workload: Workload) -> float:
    """Rate of a hidden layer's product on a batch, by the fastest library that a variant uses; the median of several."""
    shapes = [layer.weight for layer in model.critic.modules() if isinstance(layer, nn.Linear)]
    weight = max(shapes, key=lambda weight: weight.numel()).detach()
    rows = th.randn(3 * workload.batch_size, weight.shape[1], device=weight.device)
    seconds = []
    for _ in range(_PRODUCTS):
        begin = time.perf_counter()
        product(rows[None], weight.T[None])
        if weight.is_cuda:
            th.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return 2 * len(rows) * weight.numel() / statistics.median(seconds) / 1e9


def _quartiles(values: list[float]) -> tuple[float, float, float]:
    low, middle, high = np.percentile(values, [25, 50, 75])
    return float(low), float(middle), float(high)


def _seed(seed: int) -> None:
    np.random.seed(seed)
    th.manual_seed(seed)
