"""Losses of gradient steps, kept on the device and read once; equals reading each with ``item()``."""

from itertools import islice

import torch as th

from sb3_pave.fast.differentiated import Loss


class UpdateLog:
    """Scalars of each gradient step of one ``train()`` call; reading them is the only wait for the device."""

    def __init__(self) -> None:
        self._values: dict[str, list[th.Tensor]] = {}

    def add(self, **scalars: Loss) -> None:
        """:param scalars: losses and other one-element tensors by their tag (without ``train/``)"""
        for tag, scalar in scalars.items():
            self._values.setdefault(tag, []).append(scalar.detach().reshape(()))

    def stacked(self) -> tuple[tuple[str, ...], th.Tensor]:
        """
        :return: the tags of one gradient step, and their values in one tensor
        """
        return tuple(self._values), th.stack([values[-1].float() for values in self._values.values()])

    def read(self) -> dict[str, list[float]]:
        """
        :return: each tag's values, one per gradient step in which it was added
        """
        if not self._values:
            return {}
        numbers = iter(th.stack([value.float() for values in self._values.values() for value in values]).tolist())
        return {tag: list(islice(numbers, len(values))) for tag, values in self._values.items()}
