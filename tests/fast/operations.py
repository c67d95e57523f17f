"""A recording on the CPU that, as a CUDA graph, repeats operations on the memory they had, and nothing of Python."""

import torch as th
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sb3_pave.fast.capture import unvalidated_distributions

# What would wait for the device to tell the host a value, or bring one from the host's memory
READING = frozenset("_local_scalar_dense equal is_nonzero nonzero item masked_select _unique2 lift_fresh lift".split())


class OperationCapture:
    """
    Stands in for ``CudaCapture``: an update is recorded without being done, what it would read from the device is an error,
    and a replay sees no Python at all, so that a value which was frozen shows.
    """

    capturable = True
    obstacle = None

    def __init__(self, device):
        self.device = device

    def warm_up(self, update):
        with unvalidated_distributions():
            return update()

    def record(self, update):
        random_state, recorder = th.get_rng_state(), _Recorder()
        try:
            with unvalidated_distributions(), recorder:
                outcome = update()
        finally:
            for storage, before in recorder.written.values():
                storage.copy_(before)
            th.set_rng_state(random_state)

        def replay():
            with th.no_grad():
                for function, args, kwargs, outputs in recorder.operations:
                    results = tree_leaves(function(*args, **kwargs))
                    for output, result in zip(outputs, results, strict=False):
                        output.copy_(result)
            return outcome

        return replay


class _Recorder(TorchDispatchMode):
    """Notes operations with their arguments, and what memory from before it they write to."""

    def __init__(self):
        super().__init__()
        self.operations, self.written = [], {}
        self._made, self._kept = set(), []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        schema = function._schema
        namespace, name = schema.name.split("::")
        if namespace == "profiler":
            return function(*args, **kwargs)
        if name in READING:
            raise RuntimeError(f"operation not permitted while recording: {schema.name}")
        given = [*args, *(kwargs.get(argument.name) for argument in schema.arguments[len(args) :])]
        changed = [
            value
            for argument, value in zip(schema.arguments, given, strict=True)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        for tensor in tree_leaves(changed):
            if isinstance(tensor, th.Tensor) and (key := _memory(tensor)) not in self._made:
                storage = tensor.untyped_storage()
                self.written.setdefault(key, (storage, storage.clone()))
        result = function(*args, **kwargs)
        self._kept.append((args, kwargs, result))  # addresses stay theirs
        is_view = not changed and any(returned.alias_info is not None for returned in schema.returns)
        if is_view:
            return result
        outputs = [] if changed else [leaf for leaf in tree_leaves(result) if isinstance(leaf, th.Tensor)]
        self._made.update(map(_memory, outputs))
        if not name.startswith(("empty", "new_empty")):
            self.operations.append((function, args, kwargs, outputs))
        return result


def _memory(tensor):
    return tensor.untyped_storage().data_ptr()
