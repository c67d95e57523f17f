"""Batches of nested tensors: their rows, their leaves."""

from collections.abc import Iterator
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


def leaves(batch: Any) -> list[th.Tensor]:
    """
    Every tensor in a batch, in its order.

    :param batch: as ``select`` takes it
    """
    if batch is None:
        return []
    if isinstance(batch, th.Tensor):
        return [batch]
    return [leaf for part in (batch.values() if isinstance(batch, dict) else batch) for leaf in leaves(part)]


def rebuilt(batch: Batch, tensors: Iterator[th.Tensor]) -> Batch:
    """
    The same structure with other tensors.

    :param batch: as ``select`` takes it
    :param tensors: as many as ``leaves(batch)`` has, in its order
    """
    parts: Any = batch
    if parts is None:
        return batch
    if isinstance(parts, th.Tensor):
        return next(tensors)  # type: ignore[return-value]
    if isinstance(parts, dict):
        return {key: rebuilt(part, tensors) for key, part in parts.items()}  # type: ignore[return-value]
    others = [rebuilt(part, tensors) for part in parts]
    return tuple(others) if type(parts) is tuple else type(parts)(*others)  # type: ignore[return-value]


def on_device(batch: Batch, device: th.device) -> Batch:
    """
    The same batch on a device.

    :param batch: as ``select`` takes it
    :param device: where its tensors shall be
    """
    return rebuilt(batch, iter([leaf.to(device) for leaf in leaves(batch)]))
