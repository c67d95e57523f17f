"""Batches at fixed addresses, which recordings read; equals moving each batch to the device."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th

from sb3_pave.method.batches import leaves, rebuilt

_ALIGNMENT = 16  # bytes


class StaticBatch:
    """
    Tensors at fixed addresses for batches of one structure, filled by one copy.

    :param batch: an example, on the CPU or where a buffer of the user's keeps it
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
        # The batch at the fixed addresses
        self.batch = rebuilt(batch, iter(_views(self._memory, tensors, ends)))

    def load(self, tensors: list[th.Tensor]) -> None:
        """
        :param tensors: the leaves of a batch of the example's structure, shapes and types
        """
        if self._copied is not None:
            # The last copy may still be reading
            self._copied.synchronize()
        th._foreach_copy_(self._staged, tensors)
        self._memory.copy_(self._staging, non_blocking=True)
        if self._copied is not None:
            # An event is otherwise recorded on the current device, which may be another one
            self._copied.record(th.cuda.current_stream(self._memory.device))


def _views(memory: th.Tensor, like: Sequence[th.Tensor], ends: Any) -> list[th.Tensor]:
    views = []
    for leaf, begin in zip(like, ends, strict=False):
        n_bytes = leaf.numel() * leaf.element_size()
        views.append(memory[int(begin) : int(begin) + n_bytes].view(leaf.dtype).view(leaf.shape))
    return views
