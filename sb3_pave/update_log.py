"""Losses of gradient steps, kept on the device and read once."""

import numpy as np
import torch as th


class UpdateLog:
    """Scalars of each gradient step of one ``train()`` call; reading them is the only wait for the device."""

    def __init__(self) -> None:
        self._values: dict[str, list[th.Tensor]] = {}

    def add(self, **scalars: th.Tensor) -> None:
        """:param scalars: one-element tensors by their tag (without ``train/``)"""
        for tag, scalar in scalars.items():
            self._values.setdefault(tag, []).append(scalar.detach().reshape(()))

    def stacked(self) -> tuple[tuple[str, ...], th.Tensor]:
        """
        :return: the tags of one gradient step, and their values in one tensor
        """
        return tuple(self._values), th.stack([values[-1].float() for values in self._values.values()])

    def read(self) -> dict[str, np.ndarray]:
        """
        :return: each tag's values, one per gradient step in which it was added
        """
        if not self._values:
            return {}
        values = th.stack([value.float() for values in self._values.values() for value in values]).cpu().numpy()
        ends = np.cumsum([len(values) for values in self._values.values()])
        return dict(zip(self._values, np.split(values, ends[:-1]), strict=True))
