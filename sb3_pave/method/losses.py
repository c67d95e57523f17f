"""The three PAVE terms, as functions of the gradient field."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch as th
import torch.nn.functional as F

from sb3_pave.method.field import GradientField


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


#: What the log calls the terms
TAGS = tuple(f"{term}_loss" for term in PaveLosses._fields)


def pave_losses(field: GradientField, curv_delta: Any, has_successor: th.Tensor | None = None) -> PaveLosses:
    """
    All terms that the field allows.

    :param field: the field at a batch of transitions
    :param curv_delta: ``δ``, the curvature asked for, a number or a scalar tensor
    :param has_successor: 1 where the stored next observation follows the observation, 0 elsewhere, shape (batch,);
        None: everywhere
    """
    return PaveLosses(
        mpr=None if field.grad_noisy is None else mixed_partial(field.grad, field.grad_noisy),
        vfc=None if field.grad_next is None else vector_field_consistency(field.grad, field.grad_next, has_successor),
        curv=None if field.curvature is None else curvature_preservation(field.curvature, curv_delta),
    )


def weighted_sum(losses: PaveLosses, coefs: Sequence[Any]) -> th.Tensor:
    """
    ``λ1 L_MPR + λ2 L_VFC + λ3 L_Curv``

    :param losses: the terms
    :param coefs: ``(λ1, λ2, λ3)``, numbers or scalar tensors
    """
    return sum(coef * loss for coef, loss in zip(coefs, losses, strict=True) if loss is not None)  # type: ignore[return-value]


def signals(field: GradientField, losses: PaveLosses) -> dict[str, th.Tensor]:
    """
    What the log shows of the field: the raw terms, the RMS of ``∇_a Q`` and the share of concave samples.

    :param field: the field
    :param losses: its terms
    """
    logged = {tag: loss for tag, loss in zip(TAGS, losses, strict=True) if loss is not None}
    logged["action_grad_rms"] = field.grad.detach().square().mean().sqrt()
    if field.curvature is not None:
        logged["concave_share"] = (field.curvature.detach() < 0).float().mean()
    return logged


def mixed_partial(grad: th.Tensor, grad_noisy: th.Tensor) -> th.Tensor:
    """MPR, ``E || ∇_a Q(s + ε, a) - ∇_a Q(s, a) ||²``: the field's change under noise in the state."""
    return _mean_squared_change(grad, grad_noisy)


def vector_field_consistency(grad: th.Tensor, grad_next: th.Tensor, has_successor: th.Tensor | None = None) -> th.Tensor:
    """VFC, ``E || ∇_a Q(s_{t+1}, a_t) - ∇_a Q(s_t, a_t) ||²``: the field's change along a transition."""
    return _mean_squared_change(grad, grad_next, has_successor)


def curvature_preservation(curvature: th.Tensor, delta: Any) -> th.Tensor:
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
