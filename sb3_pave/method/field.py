"""The action-gradient field ``∇_a Q`` of any SB3 critic, at the points that the PAVE terms compare."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_pave.method.batches import select
from sb3_pave.method.points import FieldInputs, evaluating, stack


class GradientField(NamedTuple):
    """
    The field of an ensemble of critics at a batch of replayed transitions, or at some of its rows.

    :param grad: ``∇_a Q(s, a)``, shape (n_critics, batch, action_dim)
    :param grad_noisy: ``∇_a Q(s + ε, a)``, same shape, or None if no noisy observations were given
    :param grad_next: ``∇_a Q(s', a)``, same shape, or None if no next observations were given
    :param curvature: ``vᵀ ∇²_aa Q(s, a) v``, shape (n_critics, batch), or None if no direction was given
    """

    grad: th.Tensor
    grad_noisy: th.Tensor | None
    grad_next: th.Tensor | None
    curvature: th.Tensor | None


def gradient_field(critic: nn.Module, inputs: FieldInputs) -> GradientField:
    """
    The definition: evaluate the field at ``(s, a)``, and at ``(s + ε, a)`` and ``(s', a)`` where asked for, with its graph.

    Layers that behave differently in training (BatchNorm, dropout) are evaluated as in prediction: the points are
    compared under one set of statistics and without a mask, and running statistics do not move.

    :param critic: maps ``(observations, actions)`` to one value per critic: a (batch, 1) tensor or a tuple of such, one tensor
        of shape (n_critics, batch, 1), or quantiles of shape (batch, n_critics, n_quantiles), of which the mean is taken
    :param inputs: the points
    :raises RuntimeError: if the critic returns something else, or if it has no second-order graph (passed through
        ``torch.compile``, detached, ...)
    """
    refuse_compiled(critic)
    observations, actions, direction = inputs.observations, inputs.actions, inputs.direction
    displaced, rows = inputs.displaced, inputs.rows
    if rows is not None:
        observations, actions = select(observations, rows), actions[rows]
    with evaluating(critic):
        leaf = actions.detach().requires_grad_()
        grad = replayed = _action_gradient(critic, observations, leaf)
        if displaced:
            repeated = actions.detach().repeat(len(displaced), 1).requires_grad_()
            grad = th.cat([grad, _action_gradient(critic, stack(list(displaced.values())), repeated)], dim=1)
        curvature = None if direction is None else _projected_curvature(replayed, leaf, direction)
    return split_field(grad, curvature, tuple(displaced))


def split_field(grad: th.Tensor, curvature: th.Tensor | None, displaced: Sequence[str]) -> GradientField:
    """
    Name the parts of a field that was evaluated at stacked points.

    :param grad: ``∇_a Q`` at the replayed states, then at the displaced ones, shape (n_critics, points, action_dim)
    :param curvature: of the replayed states, shape (n_critics, batch), or None
    :param displaced: for which of ``GradientField``'s fields the displaced states are
    """
    replayed, *others = grad.chunk(1 + len(displaced), dim=1)
    by_name = dict(zip(displaced, others, strict=True))
    return GradientField(replayed, by_name.get("grad_noisy"), by_name.get("grad_next"), curvature)


def refuse_compiled(critic: nn.Module) -> None:
    """:raises RuntimeError: if the critic or a part of it was passed through ``torch.compile``, which drops ``∇²Q``"""
    for module in critic.modules():
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            raise RuntimeError(
                "PAVE differentiates the critic's action gradient once more, which a critic passed through torch.compile "
                "does not allow. Leave the critic uncompiled (compiling the actor or the policy's forward is fine)."
            )


def _action_gradient(critic: nn.Module, observations: PyTorchObs, actions: th.Tensor) -> th.Tensor:
    """``∇_a Q`` with its graph, shape (n_critics, batch, action_dim)."""
    grads = []
    for values in values_of_output(critic(observations, actions), len(actions)):
        grad = None
        if values.requires_grad:
            (grad,) = th.autograd.grad(values.sum(), actions, create_graph=True, allow_unused=True)
        if grad is None or not grad.requires_grad:
            raise RuntimeError(
                f"PAVE needs the gradient of the critic ({type(critic).__name__}) with respect to the action, and the graph "
                "of that gradient, but the critic's forward pass cuts it. Look for detach(), no_grad() or .data in it, for a "
                "custom autograd function without a second derivative, or for an action that it does not use."
            )
        grads.append(grad)
    return th.stack(grads)


def _projected_curvature(grad: th.Tensor, actions: th.Tensor, direction: th.Tensor) -> th.Tensor:
    """``vᵀ ∇²_aa Q v`` by a Hessian-vector product, shape (n_critics, batch)."""
    curvatures = []
    for grad_i in grad:
        (hvp,) = th.autograd.grad((grad_i * direction).sum(), actions, create_graph=True, allow_unused=True)
        # A critic that is linear in the action has no second derivative in its graph: it is zero
        curvatures.append(direction.new_zeros(len(direction)) if hvp is None else (hvp * direction).sum(dim=1))
    return th.stack(curvatures)


def values_of_output(output: Any, batch_size: int) -> tuple[th.Tensor, ...]:
    """
    One tensor of shape (batch,) per critic.

    :param output: what a critic returns, see ``gradient_field``; quantiles enter by their mean
    :param batch_size: for how many observations and actions
    :raises RuntimeError: if it has another shape
    """
    shapes: Any
    if isinstance(output, (tuple, list)):
        shapes = [tuple(values.shape) for values in output]
        if all(shape == (batch_size, 1) for shape in shapes):
            return tuple(values.squeeze(dim=1) for values in output)
    else:
        shapes = tuple(output.shape)
        if shapes == (batch_size, 1):
            return (output.squeeze(dim=1),)
        if len(shapes) == 3 and shapes[0] == batch_size:
            return output.mean(dim=2).unbind(dim=1)
        if len(shapes) == 3 and shapes[1:] == (batch_size, 1):
            return output.squeeze(dim=2).unbind()
    raise RuntimeError(
        f"The critic returns {shapes} for {batch_size} transitions. PAVE takes a tensor of shape (batch, 1) or a tuple of "
        "such, one for each critic, as SB3's critics return; all of them as one tensor of shape (n_critics, batch, 1); or "
        "quantiles of shape (batch, n_critics, n_quantiles), as TQC's."
    )
