"""Losses that come with their gradient."""

from collections.abc import Sequence
from typing import NamedTuple

import torch as th


class Differentiated(NamedTuple):
    """
    A loss and its gradient, computed in one go; takes part in training as a tensor with a graph does.

    :param value: the loss
    :param tensors: what it was differentiated with respect to
    :param gradients: its gradients, of their shapes
    """

    value: th.Tensor
    tensors: tuple[th.Tensor, ...]
    gradients: tuple[th.Tensor, ...]

    def backward(self, inputs: Sequence[th.Tensor]) -> None:
        """
        Accumulate the gradient, as ``Tensor.backward`` does.

        :param inputs: the leaves that get it
        """
        th.autograd.backward(self.tensors, self.gradients, inputs=inputs)

    def detach(self) -> th.Tensor:
        """The loss without its gradient."""
        return self.value


# What ``descend`` can take a step down
Loss = th.Tensor | Differentiated
