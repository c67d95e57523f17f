"""What records in place of CUDA graphs in tests on the CPU."""

import itertools

import torch as th
from torch.utils._python_dispatch import TorchDispatchMode


class StandIn:
    """Records nothing, but refuses to replay an update that would not do what it did when it was recorded."""

    capturable = False  # its optimizers are on the CPU
    obstacle = None

    def __init__(self, device):
        self.device = device
        self.warm_ups = self.recordings = self.replays = 0
        StandIn.last = self

    def warm_up(self, update):
        self.warm_ups += 1
        return update()

    def record(self, update):
        self.recordings += 1
        recorded_tags = None

        def replay():
            nonlocal recorded_tags
            self.replays += 1
            outcome = update()
            recorded_tags = recorded_tags or outcome.tags
            assert outcome.tags == recorded_tags
            return outcome

        return replay


class FailingHalfWay(StandIn):
    """
    Fails after some operations. As where operations are recorded and not done, all memory is then as it was before; what
    Python did meanwhile is not undone.
    """

    model = None
    error = RuntimeError("half-way")
    after = 100

    def record(self, update):
        model = self.model
        states = [state for optimizer in model._optimizers() for state in optimizer.state.values()]
        tensors = [*model.policy.parameters(), *model.policy.buffers(), *model._own_tensors()]
        tensors += [value for state in states for value in state.values()]
        before, random_state = [tensor.detach().clone() for tensor in tensors], th.get_rng_state()
        try:
            with _FailsAfter(self.after, self.error):
                update()
        finally:
            with th.no_grad():
                for tensor, value in zip(tensors, before, strict=True):
                    tensor.copy_(value)
            th.set_rng_state(random_state)
        raise AssertionError("the update is over before it could fail")


class _FailsAfter(TorchDispatchMode):
    def __init__(self, n_operations, error):
        super().__init__()
        self._left, self._error = itertools.count(n_operations, -1), error

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if next(self._left) == 0:
            raise self._error
        return function(*args, **(kwargs or {}))
