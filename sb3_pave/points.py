"""The points of a batch that the closed form evaluates the field at, stacked."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch as th
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_pave.batches import leaves, select

# These compute the same in training and evaluation mode, so that one forward pass serves the TD term and the field
_MODE_FREE_EXTRACTORS = (FlattenExtractor, CombinedExtractor, NatureCNN)


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


class StackedPoints(NamedTuple):
    """
    First the replayed transitions, last of them those that have a field; then the displaced states of these.

    :param features: shape (rows, features_dim)
    :param actions: shape (rows, action_dim)
    :param direction: ``v``, shape (k, action_dim), or None
    :param n_values: the number of replayed transitions
    :param field_from: the first of those that have a field
    :param order: of the replayed transitions, as indices of the batch; None: as in the batch
    """

    features: th.Tensor
    actions: th.Tensor
    direction: th.Tensor | None
    n_values: int
    field_from: int
    order: th.Tensor | None


def stacked_points(critic: Any, inputs: FieldInputs) -> StackedPoints:
    """
    Extract the features of all points in one forward pass, in evaluation mode where that makes a difference.

    :param critic: one that has a closed form
    :param inputs: the points
    """
    observations, actions, *_, direction, order = inputs
    displaced, rows = list(inputs.displaced.values()), inputs.rows
    field_from = 0
    if order is not None and rows is not None:
        observations, actions = select(observations, order), actions[order]
        field_from = len(order) - len(rows)
    with th.set_grad_enabled(not critic.share_features_extractor), evaluating(critic, unless=has_mode_free_features(critic)):
        features = critic.extract_features(stack([observations, *displaced]), critic.features_extractor)
    stacked_actions = th.cat([actions, *[actions[field_from:]] * len(displaced)])
    return StackedPoints(features, stacked_actions, direction, len(actions), field_from, order)


def has_mode_free_features(critic: Any) -> bool:
    """
    Whether the critic's features are the same in training and evaluation mode.

    :param critic: one that has a closed form
    """
    return type(critic.features_extractor) in _MODE_FREE_EXTRACTORS


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
