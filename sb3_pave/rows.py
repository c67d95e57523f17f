"""Rows of a batch, whatever it consists of."""

from typing import Any, TypeVar

import torch as th

Batch = TypeVar("Batch")


def select(batch: Batch, rows: slice | th.Tensor) -> Batch:
    """
    The same rows of every tensor in a batch.

    :param batch: a tensor, or a dict, tuple or named tuple of batches; None stays None
    :param rows: slice or indices of the first dimension
    """
    parts: Any = batch
    if parts is None:
        return batch
    if isinstance(parts, th.Tensor):
        return parts[rows]  # type: ignore[return-value]
    if isinstance(parts, dict):
        return {key: select(part, rows) for key, part in parts.items()}  # type: ignore[return-value]
    selected = (select(part, rows) for part in parts)
    return tuple(selected) if type(parts) is tuple else type(parts)(*selected)  # type: ignore[return-value]
