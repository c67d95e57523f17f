"""Updates recorded as CUDA graphs and replayed, one launch in place of hundreds; equals running the update."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch as th

from sb3_pave.fast.capture import Capture, Outcome, Update
from sb3_pave.fast.compiled import in_a_line
from sb3_pave.fast.detached import detach_attributes
from sb3_pave.fast.fused_adam import fused_adam
from sb3_pave.fast.optimizer_steps import move_steps
from sb3_pave.fast.recordings import WARM_UPS, Recording, loaded
from sb3_pave.fast.update_log import UpdateLog
from sb3_pave.fast.watch import same
from sb3_pave.method.batches import on_device
from sb3_pave.user_warning import warn_user

_MAX_RECORDINGS = 32  # in a row that were hardly used
_MANY_REPLAYS = 1000  # what recordings cost is nothing beside these
# What recordings read from memory, and the parameters, whose addresses count
_OURS = frozenset({"lr", "params"})


class GraphedUpdate:
    """
    Records each kind of update once, then replays it on new batches.

    A recording holds what it was made of: shapes, numbers, the networks' structure, the addresses of parameters and optimizer
    states. Where one of them changes, it is made anew. What can't be recorded is run as it is, after one warning.

    :param capture: how to record
    :param quiet: no warning where it is known beforehand that nothing can be recorded
    """

    def __init__(self, capture: Capture, quiet: bool = False):
        self.capture = capture
        self._quiet = quiet
        self._recordings: dict[Any, Recording] = {}
        self._made_of: Any = None
        self._n_recorded = self._n_replays = 0
        self._optimizers: Sequence[th.optim.Optimizer] = ()
        self._learning_rates: dict[int, _LearningRate] = {}
        self._given_up = False
        if capture.obstacle is not None:
            self._give_up(capture.obstacle, quiet)

    @property
    def goes_on(self) -> bool:
        """Whether nothing has stood in the way of recordings yet."""
        return not self._given_up

    def prepare(
        self,
        optimizers: Sequence[th.optim.Optimizer],
        tensors: Sequence[th.Tensor],
        numbers: dict[str, Any],
        structure: Any = None,
    ) -> bool:
        """
        To be called before updates whenever one of the arguments may have changed.

        :param optimizers: those that the updates step
        :param tensors: parameters and buffers that the updates use
        :param numbers: what else the updates depend on, by name
        :param structure: likewise, of the networks; compared by ``==``
        :return: whether ``run`` can be used
        """
        if self._given_up:
            return False
        for optimizer in optimizers:
            if self.capture.capturable and "capturable" not in optimizer.defaults:
                self._give_up(f"{type(optimizer).__name__} has no option capturable", self._quiet)
                return False
            for group in _groups([optimizer]):
                self._learning_rates.setdefault(id(group["params"][0]), _LearningRate(self.capture.device))
            if self.capture.capturable:
                move_steps(optimizer, to_device=True)
        states = [value for optimizer in optimizers for state in optimizer.state.values() for value in state.values()]
        addresses = tuple(tensor.data_ptr() for tensor in [*tensors, *states] if isinstance(tensor, th.Tensor))
        settings = [[value for name, value in group.items() if name not in _OURS] for group in _groups(optimizers)]
        made_of = (addresses, tuple(numbers.items()), settings, structure)
        self._optimizers = optimizers
        if self._made_of is None or not same(made_of, self._made_of):
            changed = self._changed_numbers(numbers)
            self._recordings, self._made_of = {}, made_of
            if self._n_replays >= _MANY_REPLAYS:
                self._n_recorded = 0
            self._n_replays = 0
            if self._n_recorded > _MAX_RECORDINGS:
                self._give_up(f"it was recorded {self._n_recorded} times, since {changed or 'its memory'} keeps changing")
                return False
        return True

    def follow_learning_rates(self) -> None:
        """Let recordings know the optimizers' learning rates; to be called before the updates of a ``train()`` call."""
        for group in _groups(self._optimizers):
            self._learning_rates[id(group["params"][0])].follow(group["lr"])

    def run(self, step: Callable[..., None], batch: tuple[Any, ...], kind: Any, log: UpdateLog, noise: Any = None) -> None:
        """
        One update.

        :param step: takes the parts of the batch and a log
        :param batch: on the CPU, or where a buffer of the user's keeps it
        :param kind: of the update: which branches it takes
        :param log: takes what the step logs
        :param noise: an object whose attributes the step sets, as it shall find them set after a replay; or None
        """
        if self._given_up:
            step(*on_device(batch, self.capture.device), log=log)
            return
        recording = loaded(self._recordings, batch, kind, self.capture.device)

        def update() -> Outcome:
            own_log = UpdateLog()
            step(*recording.inputs.batch, log=own_log)
            detach_attributes(noise)
            return Outcome(*own_log.stacked(), {} if noise is None else dict(vars(noise)))

        if recording.replay is None:
            detach_attributes(noise)  # acting has drawn it, too
            if recording.n_warm_ups < WARM_UPS:
                recording.n_warm_ups += 1
                with self._recordable():
                    outcome = self.capture.warm_up(update)
                log.add_all(outcome.tags, outcome.values)
                return
            recording.replay = self._record(update, noise)
            if recording.replay is None:
                step(*recording.inputs.batch, log=log)
                return
        self._n_replays += 1
        outcome = recording.replay()
        if noise is not None:
            vars(noise).update(outcome.attributes)
        log.add_all(outcome.tags, outcome.values)

    def _record(self, update: Update, noise: Any) -> Update | None:
        """What replays the update; None where it can't be recorded, after a warning."""
        try:
            with self._recordable(), _kept_on_error(noise):
                replay = self.capture.record(update)
        except Exception as error:  # whatever the driver makes of what can't be captured
            self._give_up(in_a_line(error))
            return None
        self._n_recorded += 1
        return replay

    @contextmanager
    def _recordable(self) -> Iterator[None]:
        """Optimizers read their learning rates from memory in this context, so that schedules work, and are fused ones."""
        groups = _groups(self._optimizers)
        before = [(group["lr"], group.get("capturable")) for group in groups]
        with fused_adam(self._optimizers) if self.capture.capturable else nullcontext(), warnings.catch_warnings():
            # Optimizers say so, those that were copied, where steps before a recording are not recorded
            warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
            for group in groups:
                group["lr"] = self._learning_rates[id(group["params"][0])].value
                if self.capture.capturable:
                    group["capturable"] = True
            try:
                yield
            finally:
                for group, (lr, capturable) in zip(groups, before, strict=True):
                    group["lr"] = lr
                    if self.capture.capturable:
                        group["capturable"] = capturable

    def _changed_numbers(self, numbers: dict[str, Any]) -> str:
        before = dict(self._made_of[1]) if self._made_of else numbers
        return ", ".join(name for name in numbers if numbers[name] != before.get(name))

    def _give_up(self, reason: str, quiet: bool = False) -> None:
        self._given_up = True
        self._recordings = {}
        for optimizer in self._optimizers if self.capture.capturable else ():
            move_steps(optimizer, to_device=False)
        if not quiet:
            warn_user(f"cuda_graph: the update can't be recorded: {reason}. Training goes on without, with the same results.")


def _groups(optimizers: Sequence[th.optim.Optimizer]) -> list[dict[str, Any]]:
    """The optimizers' settings, those that are for no parameter (an option of PyTorch's) left out."""
    return [group for optimizer in optimizers for group in optimizer.param_groups if group["params"]]


class _LearningRate:
    """A learning rate in memory, written when it changes."""

    def __init__(self, device: th.device):
        self.value = th.zeros((), device=device)
        self._known: float | None = None

    def follow(self, learning_rate: Any) -> None:
        if self._known != learning_rate:
            self._known = float(learning_rate)
            self.value.fill_(self._known)


@contextmanager
def _kept_on_error(noise: Any) -> Iterator[None]:
    # What a recording drew is no number yet
    before = {} if noise is None else dict(vars(noise))
    try:
        yield
    except BaseException:
        if noise is not None:
            vars(noise).update(before)
        raise
