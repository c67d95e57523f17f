"""All points of ``method.points.FieldInputs`` in one pass of the features; equals a pass for each, one after the other."""

from typing import Any, NamedTuple

import torch as th
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from torch import nn

from sb3_pave.fast.activations import ACTIVATIONS
from sb3_pave.method.batches import select
from sb3_pave.method.points import FieldInputs, evaluating, stack

# These, and activations, compute the same in training and evaluation mode, so that one forward pass serves the TD term and
# the field
_MODE_FREE = (FlattenExtractor, CombinedExtractor, NatureCNN)
_MODE_FREE_PARTS = (*_MODE_FREE, nn.Flatten, nn.Identity, nn.Linear, nn.Conv2d, nn.Sequential, nn.ModuleDict, *ACTIVATIONS)


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
    observations, actions, direction = inputs.observations, inputs.actions, inputs.direction
    displaced, order, rows = list(inputs.displaced.values()), inputs.order, inputs.rows
    field_from = 0
    if order is not None and rows is not None:
        observations, actions = select(observations, order), actions[order]
        field_from = len(order) - len(rows)
    with th.set_grad_enabled(not critic.share_features_extractor), evaluating(critic, unless=has_mode_free_features(critic)):
        features = critic.extract_features(stack([observations, *displaced]), critic.features_extractor)
    # The networks, which are to be differentiated, may have more digits than the replayed actions; under autocast, features
    # have fewer
    dtype = th.promote_types(features.dtype, actions.dtype)
    features, actions = features.to(dtype), actions.to(dtype)
    direction = None if direction is None else direction.to(dtype)
    stacked_actions = th.cat([actions, *[actions[field_from:]] * len(displaced)])
    return StackedPoints(features, stacked_actions, direction, len(actions), field_from, order)


def has_mode_free_features(critic: Any) -> bool:
    """
    Whether the critic's features are the same in training and evaluation mode.

    :param critic: one that has a closed form
    """
    extractor = critic.features_extractor
    return type(extractor) in _MODE_FREE and all(type(part) in _MODE_FREE_PARTS for part in extractor.modules())
