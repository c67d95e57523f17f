"""The three PAVE terms, as functions of the gradient field."""

from typing import NamedTuple

import torch as th
import torch.nn.functional as F

from sb3_pave.field import GradientField


class PaveLosses(NamedTuple):
    """
    The terms of ``L = L_TD + λ1 L_MPR + λ2 L_VFC + λ3 L_Curv``, scalars; None where the field was not evaluated for it.

    :param mpr: mixed-partial regularization
    :param vfc: vector-field consistency
    :param curv: curvature preservation
    """

    mpr: th.Tensor | None
    vfc: th.Tensor | None
    curv: th.Tensor | None


def pave_losses(field: GradientField, curv_delta: float, has_successor: th.Tensor | None = None) -> PaveLosses:
    """
    All terms that the field allows.

    :param field: the field at a batch of transitions
    :param curv_delta: ``δ``, the curvature asked for
    :param has_successor: 1 where the stored next observation follows the observation, 0 elsewhere, shape (batch,);
        None: everywhere
    """
    return PaveLosses(
        mpr=None if field.grad_noisy is None else mixed_partial(field.grad, field.grad_noisy),
        vfc=None if field.grad_next is None else vector_field_consistency(field.grad, field.grad_next, has_successor),
        curv=None if field.curvature is None else curvature_preservation(field.curvature, curv_delta),
    )


def mixed_partial(grad: th.Tensor, grad_noisy: th.Tensor) -> th.Tensor:
    """MPR, ``E || ∇_a Q(s + ε, a) - ∇_a Q(s, a) ||²``: the field's change under noise in the state."""
    return _mean_squared_change(grad, grad_noisy)


def vector_field_consistency(grad: th.Tensor, grad_next: th.Tensor, has_successor: th.Tensor | None = None) -> th.Tensor:
    """VFC, ``E || ∇_a Q(s_{t+1}, a_t) - ∇_a Q(s_t, a_t) ||²``: the field's change along a transition."""
    return _mean_squared_change(grad, grad_next, has_successor)


def curvature_preservation(curvature: th.Tensor, delta: float) -> th.Tensor:
    """
    Curv, ``E max(0, vᵀ ∇²_aa Q(s, a) v + δ)``: keeps each critic concave in the action.

    :param curvature: ``vᵀ ∇²_aa Q v``, shape (n_critics, batch)
    :param delta: ``δ``
    """
    return F.relu(curvature + delta).mean(dim=1).sum()


def _mean_squared_change(grad: th.Tensor, displaced: th.Tensor, weight: th.Tensor | None = None) -> th.Tensor:
    """Mean over the batch and over the action dimensions, summed over the critics (shape of both (n_critics, batch, dim))."""
    change = (displaced - grad).square().mean(dim=2)
    if weight is None:
        return change.mean(dim=1).sum()
    return (change * weight).sum() / weight.sum().clamp(min=1)
