"""Time of one gradient step: PAVE's ways of doing it against the plain host, interleaved in one process."""

import multiprocessing
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import stable_baselines3
import torch as th
from gymnasium import spaces
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch import nn

import sb3_pave
from sb3_pave.algorithms.mixin import Pave
from sb3_pave.baselines import METHODS
from sb3_pave.baselines.factory import with_method
from sb3_pave.benchmark.flops import gradient_step_flops
from sb3_pave.fast.matmul import product

_TRANSITIONS = 2000  # in the replay buffer that the batches are drawn from


@dataclass(frozen=True)
class Workload:
    """
    What is timed.

    :param algo: the host's name: td3, sac, ...
    :param env_id: a Gymnasium environment; None: random transitions of the two sizes below
    :param obs_dim: observation size
    :param action_dim: action size
    :param net_arch: hidden layers of actor and critics; None: the host's own
    :param batch_size: transitions of a gradient step
    :param device: of the networks
    :param threads: of PyTorch; None: as they are
    :param seed: of networks and batches
    """

    algo: str = "td3"
    env_id: str | None = None
    obs_dim: int = 17
    action_dim: int = 6
    net_arch: tuple[int, ...] | None = None
    batch_size: int = 256
    device: str = "cpu"
    threads: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Variant:
    """
    One way to do a gradient step.

    :param name: its row in the table
    :param pave: whether it is PAVE; else the plain host
    :param kwargs: constructor arguments
    :param closed_form: False: the field by the autograd definition
    :param method: an actor-side method around it; None: there is none
    """

    name: str
    pave: bool = True
    kwargs: dict[str, Any] = field(default_factory=dict)
    closed_form: bool = True
    method: str | None = None


HOST = Variant("host", pave=False)
_NO_TERMS = {"mpr_coef": 0, "vfc_coef": 0, "curv_coef": 0}


def default_variants(workload: Workload) -> list[Variant]:
    """The host, the definition, and every mode that this machine can run."""
    quarter = {"pave_batch_size": max(1, workload.batch_size // 4)}
    fused = {"policy_kwargs": {"optimizer_kwargs": {"fused": True}}}
    return [
        HOST,
        Variant("autograd", closed_form=False),
        Variant("pave"),
        Variant("pave, fused Adam", kwargs=fused),
        Variant("compiled", kwargs={"compile": True}),
        Variant("quarter batch", kwargs=quarter),
        Variant("quarter batch, compiled", kwargs={**quarter, "compile": True}),
        *_on_cuda(workload),
    ]


def rival_variants() -> list[Variant]:
    """The actor-side methods around the host, with their default weights, and DAMPER around PAVE."""
    alone = [Variant(method, pave=False, method=method) for method in METHODS]
    return [*alone, Variant("damper and pave", method="damper")]


def _on_cuda(workload: Workload) -> list[Variant]:
    if th.device(workload.device).type != "cuda":
        return []
    return [
        Variant("host, graphs", kwargs={**_NO_TERMS, "cuda_graph": True}),
        Variant("graphs", kwargs={"cuda_graph": True}),
        Variant("graphs, compiled", kwargs={"cuda_graph": True, "compile": True}),
    ]


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

    Each round draws a batch and times a block of ``train()`` of every variant on it, in random order, so that whatever
    else the machine does falls on all of them alike.

    :param workload: networks, batch and device
    :param variants: what to compare; the host is added where it is missing
    :param repetitions: timed rounds
    :param warmup: rounds before them (compilation, capture, caches)
    :param memory_updates: gradient steps over which each variant's memory is measured, on the CPU in a process of its own;
        0: leave it out
    :param learn_steps: environment steps of each of three rounds of ``learn()``; 0: leave it out
    :param progress: called with a line of text as the work proceeds
    :raises RuntimeError: if the variants do not compute the same losses
    """
    chosen = [HOST, *(v for v in variants or default_variants(workload) if v != HOST)]
    with _threads(workload.threads):
        models, losses, first_update_s = _first_updates(workload, chosen, progress)
        updates = getattr(models[HOST.name], "policy_delay", 1)
        seconds = _time_blocks(models, workload, updates, repetitions, warmup, progress)
        gflops = _matmul_gflops(models[HOST.name], workload)
        learned = _time_learning(workload, chosen, learn_steps, progress) if learn_steps else {}
        memory = {v.name: _memory_mb(workload, v, memory_updates, progress) for v in chosen if memory_updates}
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
    return Report(workload, repetitions, updates, memory_updates, gflops, _machine(workload), timings)


def make_model(workload: Workload, variant: Variant) -> OffPolicyAlgorithm:
    """
    An agent of the variant, with a replay buffer to draw from.

    :param workload: its networks and batch
    :param variant: host, PAVE or a rival
    :raises ValueError: if there is no such algorithm
    """
    pave_class = _pave_class(workload.algo)
    kwargs = {"policy_kwargs": {}, **variant.kwargs}
    policy_kwargs = {"activation_fn": nn.SiLU, **kwargs.pop("policy_kwargs")}
    if workload.net_arch is not None:
        policy_kwargs["net_arch"] = list(workload.net_arch)
    algorithm = pave_class if variant.pave else host_class(pave_class)
    if variant.method is not None:
        algorithm = with_method(variant.method, algorithm)
    model: Any = algorithm(
        "MlpPolicy",
        _make_env(workload),
        batch_size=workload.batch_size,
        buffer_size=2 * _TRANSITIONS,
        learning_starts=_TRANSITIONS,
        policy_kwargs=policy_kwargs,
        device=workload.device,
        seed=workload.seed,
        **kwargs,
    )
    if not variant.closed_form:
        model.critic.__class__ = _without_closed_form(type(model.critic))
    return model.learn(_TRANSITIONS - 1)


def host_class(pave_class: type[OffPolicyAlgorithm]) -> type[OffPolicyAlgorithm]:
    """The SB3 class that a PAVE class extends."""
    hosts = (base for base in pave_class.__mro__ if issubclass(base, OffPolicyAlgorithm) and not issubclass(base, Pave))
    return next(hosts)


def _pave_class(algo: str) -> type[OffPolicyAlgorithm]:
    names = {name.removeprefix("PAVE_").lower(): name for name in dir(sb3_pave) if name.startswith("PAVE_")}
    if algo.lower() not in names:
        raise ValueError(f"There is no algorithm {algo!r}; choose one of {', '.join(sorted(names))}.")
    return getattr(sb3_pave, names[algo.lower()])


class _RandomTransitions(gym.Env):
    """Observations of a given size at no cost, so that the updates are what takes time."""

    def __init__(self, obs_dim: int, action_dim: int):
        self.observation_space = spaces.Box(-np.inf, np.inf, (obs_dim,), np.float32)
        self.action_space = spaces.Box(-1, 1, (action_dim,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        return self._observation(), self.np_random.normal(), self.np_random.random() < 0.01, False, {}

    def _observation(self) -> np.ndarray:
        return self.np_random.standard_normal(self.observation_space.shape, dtype=np.float32)


def _make_env(workload: Workload) -> gym.Env:
    if workload.env_id is None:
        return _RandomTransitions(workload.obs_dim, workload.action_dim)
    return gym.make(workload.env_id)


def _without_closed_form(critic_class: type[nn.Module]) -> type[nn.Module]:
    """The same critic with a forward pass of its own, which the closed form does not serve."""

    def forward(self: Any, obs: th.Tensor, actions: th.Tensor) -> Any:
        return critic_class.forward(self, obs, actions)

    return type(f"Definition{critic_class.__name__}", (critic_class,), {"forward": forward})


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
        _seed(workload.seed)
        begin = time.perf_counter()
        model.train(gradient_steps=1, batch_size=workload.batch_size)
        logged = model.logger.name_to_value
        losses[variant.name] = (logged.get("train/td_loss", logged["train/critic_loss"]), logged["train/critic_loss"])
        seconds[variant.name] = time.perf_counter() - begin
    _compare_losses(variants, losses)
    return models, losses, seconds


def _has_terms(variant: Variant) -> bool:
    return variant.pave and not _NO_TERMS.items() <= variant.kwargs.items()


def _compare_losses(variants: Sequence[Variant], losses: dict[str, tuple[float, float]]) -> None:
    """The TD loss is the same for all (the field's draws come after the target's), the sum where the subset is."""
    td_loss = losses[HOST.name][0]
    sums: dict[Any, tuple[str, float]] = {}
    for variant in variants:
        ours, critic_loss = losses[variant.name]
        if not np.isclose(ours, td_loss, rtol=1e-4):
            raise RuntimeError(f"{variant.name} computes a TD loss of {ours}, the host one of {td_loss} on the same batch.")
        if variant.pave:
            alike = (variant.kwargs.get("pave_batch_size"), _has_terms(variant))
            other, expected = sums.setdefault(alike, (variant.name, critic_loss))
            if not np.isclose(critic_loss, expected, rtol=1e-4):
                raise RuntimeError(f"{variant.name} optimises {critic_loss}, {other} {expected} on the same batch.")


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
    if model.device.type == "cuda":
        begin, end = th.cuda.Event(enable_timing=True), th.cuda.Event(enable_timing=True)
        th.cuda.synchronize()
        begin.record()
        model.train(gradient_steps=updates, batch_size=workload.batch_size)
        end.record()
        th.cuda.synchronize()
        return begin.elapsed_time(end) / 1000
    start = time.perf_counter()
    model.train(gradient_steps=updates, batch_size=workload.batch_size)
    return time.perf_counter() - start


def _time_learning(
    workload: Workload, variants: Sequence[Variant], steps: int, progress: Callable[[str], None], rounds: int = 3
) -> dict[str, tuple[float, float, float]]:
    """Quartiles of the environment steps per second of ``learn()``, interleaved."""
    models = {variant.name: make_model(workload, variant) for variant in variants}
    rates: dict[str, list[float]] = {name: [] for name in models}
    for i in range(rounds):
        for name in random.Random(workload.seed + i).sample(list(models), len(models)):
            progress(f"learning, round {i + 1} of {rounds}: {name}")
            model = models[name]
            model.learning_starts = 0
            before = model.num_timesteps
            begin = time.perf_counter()
            model.learn(steps, reset_num_timesteps=False)
            rates[name].append((model.num_timesteps - before) / (time.perf_counter() - begin))
    return {name: _quartiles(values) for name, values in rates.items()}


def _memory_mb(
    workload: Workload, variant: Variant, updates: int, progress: Callable[[str], None]
) -> tuple[float, float] | tuple[None, None]:
    progress(f"memory: {variant.name}")
    if th.device(workload.device).type == "cuda":
        return _train_and_read_memory(workload, variant, updates)
    if sys.platform == "win32":
        return None, None
    # The peak of a process never falls again: each variant gets its own
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_train_and_read_memory, workload, variant, updates).result()


def _train_and_read_memory(workload: Workload, variant: Variant, updates: int) -> tuple[float, float]:
    """Peak of a training run, and what it held more at its end than after a tenth of it."""
    with _threads(workload.threads):
        model: Any = make_model(workload, variant)
        on_cuda = model.device.type == "cuda"
        if on_cuda:
            th.cuda.reset_peak_memory_stats()
        held = []
        for part in (updates // 10, updates - updates // 10):
            for _ in range(part):
                # As SB3 trains after each environment step
                model.train(gradient_steps=1, batch_size=workload.batch_size)
            held.append(th.cuda.memory_allocated() / 2**20 if on_cuda else _resident_mb("VmRSS"))
    peak = th.cuda.max_memory_allocated() / 2**20 if on_cuda else _resident_mb("VmHWM")
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


def _floor_ms(model: Any, workload: Workload, variant: Variant, gflops: float) -> float | None:
    if variant.method is not None:
        return None
    rows = variant.kwargs.get("pave_batch_size", workload.batch_size) if _has_terms(variant) else 0
    flops = gradient_step_flops(model, workload.batch_size, rows)
    return None if flops is None else flops.total / gflops / 1e6


def _matmul_gflops(model: Any, workload: Workload, repetitions: int = 50) -> float:
    """Rate of a hidden layer's product on a batch, by the fastest library that a variant uses; the median of several."""
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


def _machine(workload: Workload) -> dict[str, str]:
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


def _quartiles(values: list[float]) -> tuple[float, float, float]:
    low, middle, high = np.percentile(values, [25, 50, 75])
    return float(low), float(middle), float(high)


def _seed(seed: int) -> None:
    np.random.seed(seed)
    th.manual_seed(seed)


@contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    before = th.get_num_threads()
    if threads is not None:
        th.set_num_threads(threads)
    try:
        yield
    finally:
        th.set_num_threads(before)
