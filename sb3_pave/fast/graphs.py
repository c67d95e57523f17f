"""Updates recorded as CUDA graphs and replayed, one launch in place of hundreds; equals running the update."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch as th

from sb3_pave.fast.update_log import UpdateLog
from sb3_pave.method.batches import leaves, rebuilt

_WARM_UPS = 3  # updates before a recording: libraries and optimizers set themselves up in the first ones
_MAX_RECORDINGS = 32
_ALIGNMENT = 16  # bytes
# Numbers of an SB3 agent that change while it learns, and that no update depends on
_COUNTERS = frozenset(
    "num_timesteps _total_timesteps _num_timesteps_at_start _n_updates _n_calls _episode_num _current_progress_remaining "
    "start_time seed verbose learning_rate learning_starts buffer_size batch_size gradient_steps n_envs _stats_window_size "
    "sde_sample_freq".split()
)

# Runs one update on static inputs and returns its log: tags, and their values in one tensor
Update = Callable[[], tuple[tuple[str, ...], th.Tensor]]


class Capture(Protocol):
    """
    How updates are recorded.

    :param device: of networks and inputs
    :param capturable: whether optimizers have to be ``capturable``
    :param obstacle: why nothing can be recorded here, or None
    """

    device: th.device
    capturable: bool
    obstacle: str | None

    def warm_up(self, update: Update) -> tuple[tuple[str, ...], th.Tensor]:
        """Run the update, as it will be run while it is recorded."""

    def record(self, update: Update) -> Update:
        """Record the update without running it; what is returned replays it."""


class CudaCapture:
    """
    Recording by CUDA graphs.

    :param device: of networks and inputs
    """

    capturable = True

    def __init__(self, device: th.device):
        self.device = device
        on_cuda = device.type == "cuda" and th.version.hip is None
        self.obstacle = None if on_cuda else f"the agent is on the device {device}, and CUDA graphs need a CUDA one"

    def warm_up(self, update: Update) -> tuple[tuple[str, ...], th.Tensor]:
        stream = th.cuda.Stream(self.device)
        stream.wait_stream(th.cuda.current_stream(self.device))
        with th.cuda.stream(stream), _unvalidated_distributions():
            result = update()
        th.cuda.current_stream(self.device).wait_stream(stream)
        return result

    def record(self, update: Update) -> Update:
        graph = th.cuda.CUDAGraph()
        with th.cuda.device(self.device), th.cuda.graph(graph), _unvalidated_distributions():
            tags, values = update()

        def replay() -> tuple[tuple[str, ...], th.Tensor]:
            graph.replay()
            return tags, values

        return replay


class GraphedUpdate:
    """
    Records each kind of update once, then replays it on new batches.

    A recording holds what it was made of: shapes, numbers, the addresses of parameters and optimizer states. Where one of
    them changes, it is made anew. What can't be recorded is run as it is, after one warning.

    :param capture: how to record
    """

    def __init__(self, capture: Capture):
        self._capture = capture
        self._recordings: dict[Any, _Recording] = {}
        self._made_of: Any = None
        self._n_recorded = 0
        self._learning_rates: dict[int, th.Tensor] = {}
        self._warned = False
        if capture.obstacle is not None:
            self._give_up(capture.obstacle)

    def prepare(
        self, optimizers: Sequence[th.optim.Optimizer], tensors: Sequence[th.Tensor], numbers: dict[str, float | bool | None]
    ) -> bool:
        """
        To be called before the updates of a ``train()`` call, after its learning rates were set.

        :param optimizers: those that the updates step
        :param tensors: parameters and buffers that the updates use
        :param numbers: what else the updates depend on, by name
        :return: whether ``run`` can be used
        """
        if self._warned:
            return False
        for optimizer in optimizers:
            if self._capture.capturable and "capturable" not in optimizer.defaults:
                self._give_up(f"{type(optimizer).__name__} has no option capturable")
                return False
            self._make_capturable(optimizer)
        states = [value for optimizer in optimizers for state in optimizer.state.values() for value in state.values()]
        addresses = tuple(tensor.data_ptr() for tensor in [*tensors, *states] if isinstance(tensor, th.Tensor))
        made_of = (addresses, tuple(numbers.items()))
        if made_of != self._made_of:
            changed = self._changed_numbers(numbers)
            self._recordings, self._made_of = {}, made_of
            if self._n_recorded > _MAX_RECORDINGS:
                self._give_up(f"it was recorded {self._n_recorded} times, since {changed or 'its memory'} keeps changing")
                return False
        return True

    def run(self, step: Callable[..., None], batch: tuple[Any, ...], kind: Any, log: UpdateLog) -> None:
        """
        One update.

        :param step: takes the parts of the batch and a log
        :param batch: on the CPU
        :param kind: of the update: which branches it takes
        :param log: takes what the step logs
        """
        if self._warned:
            step(*_moved(batch, self._capture.device), log=log)
            return
        key = (kind, tuple((tuple(leaf.shape), leaf.dtype) for leaf in leaves(batch)))
        recording = self._recordings.get(key)
        if recording is None:
            recording = self._recordings[key] = _Recording(StaticBatch(batch, self._capture.device))
        inputs = recording.inputs.load(batch)

        def update() -> tuple[tuple[str, ...], th.Tensor]:
            own_log = UpdateLog()
            step(*inputs, log=own_log)
            return own_log.stacked()

        if recording.replay is None and recording.n_warm_ups < _WARM_UPS:
            recording.n_warm_ups += 1
            tags, values = self._capture.warm_up(update)
        else:
            if recording.replay is None:
                try:
                    recording.replay = self._capture.record(update)
                except Exception as error:  # whatever the driver makes of what can't be captured
                    self._give_up(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
                    step(*inputs, log=log)
                    return
                self._n_recorded += 1
            tags, values = recording.replay()
        # The next replay writes into the same tensor
        log.add(**dict(zip(tags, values.clone().unbind(), strict=True)))

    @contextmanager
    def sampling_from(self, replay_buffer: Any) -> Iterator[None]:
        """
        Batches stay on the CPU in this context, to be copied to the device in one piece.

        :param replay_buffer: the agent's
        """
        before = replay_buffer.device
        replay_buffer.device = th.device("cpu")
        try:
            yield
        finally:
            replay_buffer.device = before

    def _make_capturable(self, optimizer: th.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            # A recording reads the learning rate from memory, so that schedules work
            address = self._learning_rates.setdefault(id(group["params"][0]), th.zeros((), device=self._capture.device))
            address.fill_(group["lr"])
            group["lr"] = address
            if self._capture.capturable:
                group["capturable"] = True
        if self._capture.capturable:
            for parameter, state in optimizer.state.items():
                if isinstance(state.get("step"), th.Tensor):
                    state["step"] = state["step"].to(parameter.device)

    def _changed_numbers(self, numbers: dict[str, float | bool | None]) -> str:
        before = dict(self._made_of[1]) if self._made_of else numbers
        return ", ".join(name for name in numbers if numbers[name] != before.get(name))

    def _give_up(self, reason: str) -> None:
        self._warned = True
        self._recordings = {}
        warnings.warn(
            f"cuda_graph=True: the update can't be recorded: {reason}. Training goes on without, with the same results.",
            stacklevel=4,
        )


class StaticBatch:
    """
    Tensors at fixed addresses for batches of one structure, filled by one copy.

    :param batch: an example, on the CPU
    :param device: where the tensors are
    """

    def __init__(self, batch: Any, device: th.device):
        tensors = leaves(batch)
        sizes = [-(-leaf.numel() * leaf.element_size() // _ALIGNMENT) * _ALIGNMENT for leaf in tensors]
        ends = np.cumsum([0, *sizes])
        on_cuda = device.type == "cuda"
        self._memory = th.empty(int(ends[-1]), dtype=th.uint8, device=device)
        self._staging = th.empty(int(ends[-1]), dtype=th.uint8, pin_memory=on_cuda)
        self._copied = th.cuda.Event() if on_cuda else None
        self._staged = _views(self._staging, tensors, ends)
        self._tensors = _views(self._memory, tensors, ends)

    def load(self, batch: Any) -> Any:
        """
        :param batch: of the example's structure, shapes and types
        :return: the same values at the fixed addresses
        """
        if self._copied is not None:
            # The last copy may still be reading
            self._copied.synchronize()
        for staged, leaf in zip(self._staged, leaves(batch), strict=True):
            staged.copy_(leaf)
        self._memory.copy_(self._staging, non_blocking=True)
        if self._copied is not None:
            self._copied.record()
        return rebuilt(batch, iter(self._tensors))


class _Recording:
    def __init__(self, inputs: StaticBatch):
        self.inputs = inputs
        self.n_warm_ups = 0
        self.replay: Update | None = None


def fixed_numbers(model: Any) -> dict[str, float | bool | None]:
    """
    The numbers among an agent's attributes that its updates may depend on: a recording holds their values.

    :param model: the agent
    """
    return {
        name: value
        for name, value in vars(model).items()
        if name not in _COUNTERS and (value is None or isinstance(value, (bool, int, float)))
    }


def without_capture(optimizer_state: dict[str, Any]) -> dict[str, Any]:
    """
    An optimizer's ``state_dict()`` as it would be had no update been recorded.

    :param optimizer_state: as it is
    """
    groups = [dict(group) for group in optimizer_state["param_groups"]]
    for group in groups:
        group["lr"] = float(group["lr"])
        if "capturable" in group:
            group["capturable"] = False
    state = {
        index: {name: value.cpu() if name == "step" and isinstance(value, th.Tensor) else value for name, value in own.items()}
        for index, own in optimizer_state["state"].items()
    }
    return {**optimizer_state, "param_groups": groups, "state": state}


def _views(memory: th.Tensor, like: Sequence[th.Tensor], ends: Any) -> list[th.Tensor]:
    views = []
    for leaf, begin in zip(like, ends, strict=False):
        n_bytes = leaf.numel() * leaf.element_size()
        views.append(memory[int(begin) : int(begin) + n_bytes].view(leaf.dtype).view(leaf.shape))
    return views


def _moved(batch: Any, device: th.device) -> Any:
    return rebuilt(batch, iter([leaf.to(device) for leaf in leaves(batch)]))


@contextmanager
def _unvalidated_distributions() -> Iterator[None]:
    # Validation reads values back from the device, which a recording can't
    before = th.distributions.Distribution._validate_args
    th.distributions.Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        th.distributions.Distribution.set_default_validate_args(before)
