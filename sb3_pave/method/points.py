"""The points of a batch at which the field is evaluated."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_pave.method.batches import leaves


class FieldInputs(NamedTuple):
    """
    Where a field is asked for.

    :param observations: ``s``, as the replay buffer gives them (before the critic's own preprocessing)
    :param actions: ``a`` in [-1, 1], shape (batch, action_dim)
    :param noisy_observations: ``s + ε``, see ``perturb``; None: not there
    :param next_observations: ``s'``, one step after ``s``; None: not there
    :param direction: ``v`` of the projected curvature, shape (batch, action_dim); None: no curvature
    :param order: a permutation of the batch that ends with the transitions to evaluate the field at, which the noisy and the
        next observations and the directions are then given for, in this order; None: the whole batch, as it is
    """

    observations: PyTorchObs
    actions: th.Tensor
    noisy_observations: PyTorchObs | None = None
    next_observations: PyTorchObs | None = None
    direction: th.Tensor | None = None
    order: th.Tensor | None = None

    @property
    def rows(self) -> th.Tensor | None:
        """Indices of the transitions to evaluate the field at; None: the whole batch."""
        if self.order is None:
            return None
        given = leaves((self.noisy_observations, self.next_observations, self.direction))[0]
        return self.order[len(self.order) - len(given) :]

    @property
    def displaced(self) -> dict[str, PyTorchObs]:
        """The displaced states, by the name of their field in ``GradientField``."""
        states = {"grad_noisy": self.noisy_observations, "grad_next": self.next_observations}
        return {name: state for name, state in states.items() if state is not None}


def stack(points: list[PyTorchObs]) -> PyTorchObs:
    """
    The rows of all points, one point's after the other's.

    :param points: batches of observations
    """
    if isinstance(points[0], dict):
        return {key: th.cat([point[key] for point in points]) for key in points[0]}  # type: ignore[index]
    return th.cat(points)  # type: ignore[arg-type]


@contextmanager
def evaluating(module: nn.Module, unless: bool = False) -> Iterator[None]:
    """
    Every submodule in evaluation mode inside the block, in its own mode again after it.

    :param module: the module
    :param unless: do nothing
    """
    training = [] if unless else [submodule for submodule in module.modules() if submodule.training]
    for submodule in training:
        submodule.training = False
    try:
        yield
    finally:
        for submodule in training:
            submodule.training = True
