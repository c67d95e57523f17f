"""Losses of gradient steps, kept on the device and read once; equals reading each with ``item()``."""

from typing import Any

import torch as th

from sb3_pave.fast.differentiated import Loss

_HOST = th.device("cpu")
_TOGETHER = 1000  # gradient steps whose values are packed into one tensor


class UpdateLog:
    """Scalars of each gradient step of one ``train()`` call; reading them is the only wait for the device."""

    def __init__(self) -> None:
        self._values: dict[str, list[th.Tensor]] = {}
        # Tags and their values, one per gradient step; where those come from a device, they may be on their way
        self._rows: list[tuple[tuple[str, ...], th.Tensor]] = []
        self._sender: th.device | None = None
        self._arrived: Any = None

    def add(self, **scalars: Loss) -> None:
        """:param scalars: losses and other one-element tensors by their tag (without ``train/``)"""
        for tag, scalar in scalars.items():
            self._values.setdefault(tag, []).append(scalar.detach().reshape(()))
        if any(len(values) >= _TOGETHER for values in self._values.values()):
            self._pack()

    def add_all(self, tags: tuple[str, ...], values: th.Tensor) -> None:
        """
        What one gradient step logs; copied, so that the next one may write into the same tensor.

        :param tags: without ``train/``
        :param values: of these
        """
        if values.is_cuda:
            # Into memory that they can go to while the device works on
            self._sender = values.device
            values = values.to(_HOST, non_blocking=True)
        else:
            values = values.clone()
        self._rows.append((tags, values))

    def stacked(self) -> tuple[tuple[str, ...], th.Tensor]:
        """
        :return: the tags of one gradient step, and their values in one tensor
        """
        return tuple(self._values), th.stack([values[-1].float() for values in self._values.values()])

    def send(self) -> None:
        """Start what reading needs, so that it waits for nothing that the device is given afterwards."""
        self._pack()
        if self._sender is not None:
            self._arrived = th.cuda.Event()
            self._arrived.record(th.cuda.current_stream(self._sender))

    def _pack(self) -> None:
        """One tensor in place of many, of which each takes a thousand bytes."""
        if self._values:
            tags = tuple(tag for tag, values in self._values.items() for _ in values)
            self.add_all(tags, th.stack([value.float() for values in self._values.values() for value in values]))
            self._values = {}

    @property
    def is_on_its_way(self) -> bool:
        """Whether what was sent comes from a device, which may not have got there yet."""
        return self._arrived is not None

    def read(self) -> dict[str, list[float]]:
        """
        :return: each tag's values, one per gradient step in which it was added
        """
        if self._values or self._arrived is None:
            self.send()
        if self._arrived is not None:
            self._arrived.synchronize()
        read: dict[str, list[float]] = {}
        for tags, values in self._rows:
            for tag, value in zip(tags, values.tolist(), strict=True):
                read.setdefault(tag, []).append(value)
        return read
