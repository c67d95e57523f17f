"""The action-gradient field ``∇_a Q`` of any SB3 critic, at the points that the PAVE terms compare."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch as th
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_pave.batches import select
from sb3_pave.mlp_field import is_mlp, mlp_field

# These compute the same in training and evaluation mode, so that one forward pass serves the TD term and the field
_MODE_FREE_EXTRACTORS = (FlattenExtractor, CombinedExtractor, NatureCNN)


class GradientField(NamedTuple):
    """
    The field of an ensemble of critics at a batch of replayed transitions, or at some of its rows.

    :param grad: ``∇_a Q(s, a)``, shape (n_critics, batch, action_dim)
    :param grad_noisy: ``∇_a Q(s + ε, a)``, same shape, or None if no noisy observations were given
    :param grad_next: ``∇_a Q(s', a)``, same shape, or None if no next observations were given
    :param curvature: ``vᵀ ∇²_aa Q(s, a) v``, shape (n_critics, batch), or None if no direction was given
    :param q_values: what ``critic(s, a)`` returns for the whole batch, where the field's own forward pass yields that;
        else None
    :param rows: indices of the transitions that the field is evaluated at; None: the whole batch
    """

    grad: th.Tensor
    grad_noisy: th.Tensor | None
    grad_next: th.Tensor | None
    curvature: th.Tensor | None
    q_values: tuple[th.Tensor, ...] | None
    rows: th.Tensor | None = None


def gradient_field(
    critic: nn.Module,
    observations: PyTorchObs,
    actions: th.Tensor,
    *,
    noisy_observations: PyTorchObs | None = None,
    next_observations: PyTorchObs | None = None,
    direction: th.Tensor | None = None,
    rows: th.Tensor | None = None,
    mlp_field: Callable[..., Any] = mlp_field,
) -> GradientField:
    """
    Evaluate the field at ``(s, a)``, and at ``(s + ε, a)`` and ``(s', a)`` where asked for, with its graph.

    The closed form serves SB3's own MLP critics, the autograd definition every other critic; they are equal.
    Layers that behave differently in training (BatchNorm, dropout) are evaluated as in prediction: the points are
    compared under one set of statistics and without a mask, and running statistics do not move.

    :param critic: maps ``(observations, actions)`` to one value per critic: a sequence of (batch, 1) tensors,
        or quantiles of shape (batch, n_critics, n_quantiles), of which the mean is taken
    :param observations: ``s``, as the replay buffer gives them (before the critic's own preprocessing)
    :param actions: ``a`` in [-1, 1], shape (batch, action_dim)
    :param noisy_observations: ``s + ε``, see ``perturb``
    :param next_observations: ``s'``, one step after ``s``
    :param direction: ``v`` of the projected curvature, shape (batch, action_dim)
    :param rows: indices of the transitions to evaluate the field at, which the noisy and the next observations and the
        directions are then given for, in this order; None: the whole batch
    :param mlp_field: the closed form for one network, ``mlp_field`` or a compiled one
    :raises RuntimeError: if the critic has no second-order graph (passed through ``torch.compile``, detached, ...)
    """
    refuse_compiled(critic)
    displaced = {"grad_noisy": noisy_observations, "grad_next": next_observations}
    given = {name: point for name, point in displaced.items() if point is not None}
    evaluate = partial(_closed_form, mlp_field) if has_closed_form(critic) else _autograd
    (grad, *grads), curvature, q_values = evaluate(critic, observations, actions, list(given.values()), direction, rows)
    by_point = dict(zip(given, grads, strict=True))
    return GradientField(grad, by_point.get("grad_noisy"), by_point.get("grad_next"), curvature, q_values, rows)


def has_closed_form(critic: Any) -> bool:
    """
    Whether the critic is SB3's own, or that of sb3-contrib's TQC or CrossQ (no forward pass of its own), with networks
    for which ``is_mlp`` holds (CrossQ's: without batch renormalisation).
    """
    own_forward = type(critic).forward in (ContinuousCritic.forward, *_forwards_of_contrib())
    own_features = getattr(type(critic), "extract_features", None) is ContinuousCritic.extract_features
    return own_forward and own_features and all(is_mlp(network) for network in critic.q_networks)


def _forwards_of_contrib() -> list[Any]:
    # They compute what SB3's own does. Who has such a critic has imported its module: it need not be installed
    names = {"sb3_contrib.tqc.policies": "Critic", "sb3_contrib.crossq.policies": "CrossQCritic"}
    return [getattr(sys.modules[module], name).forward for module, name in names.items() if module in sys.modules]


def refuse_compiled(critic: nn.Module) -> None:
    """:raises RuntimeError: if the critic or a part of it was passed through ``torch.compile``, which drops ``∇²Q``"""
    for module in critic.modules():
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            raise RuntimeError(
                "PAVE differentiates the critic's action gradient once more, which a critic passed through torch.compile "
                "does not allow. Leave the critic uncompiled (compiling the actor or the policy's forward is fine)."
            )


_Fields = tuple[list[th.Tensor], th.Tensor | None, tuple[th.Tensor, ...] | None]


def _closed_form(
    mlp_field: Callable[..., Any],
    critic: Any,
    observations: PyTorchObs,
    actions: th.Tensor,
    displaced: list[PyTorchObs],
    direction: th.Tensor | None,
    rows: th.Tensor | None,
) -> _Fields:
    field_actions = actions
    if rows is not None:
        # The replayed states that have a field come last, before their displaced ones
        order = _order_with_last(rows, len(actions))
        observations, actions, field_actions = select(observations, order), actions[order], actions[rows]
    n_rows = len(field_actions)
    mode_free = type(critic.features_extractor) in _MODE_FREE_EXTRACTORS
    with th.set_grad_enabled(not critic.share_features_extractor), _evaluating(critic, unless=mode_free):
        features = critic.extract_features(_stack([observations, *displaced]), critic.features_extractor)
    stacked_actions = th.cat([actions, field_actions.repeat(len(displaced), 1)])
    at = dict(n_values=len(actions), field_from=len(actions) - n_rows)
    fields = [mlp_field(network, features, stacked_actions, direction, **at) for network in critic.q_networks]

    grads = list(th.stack([grad for _, grad, _ in fields]).split(n_rows, dim=1))
    curvature = None if direction is None else th.stack([curv for _, _, curv in fields if curv is not None])
    if not mode_free:
        return grads, curvature, None
    q_values = tuple(q for q, _, _ in fields)
    return grads, curvature, q_values if rows is None else select(q_values, th.argsort(order))


def _order_with_last(rows: th.Tensor, batch: int) -> th.Tensor:
    """A permutation of the batch that ends with the given rows (found by sorting: no wait for the device)."""
    rank = rows.new_zeros(batch)
    rank[rows] = th.arange(1, len(rows) + 1, device=rows.device)
    return th.argsort(rank)


def _autograd(
    critic: Any,
    observations: PyTorchObs,
    actions: th.Tensor,
    displaced: list[PyTorchObs],
    direction: th.Tensor | None,
    rows: th.Tensor | None,
) -> _Fields:
    if rows is not None:
        observations, actions = select(observations, rows), actions[rows]
    with _evaluating(critic):
        leaf = actions.detach().requires_grad_()
        grads = [_action_gradient(critic, observations, leaf)]
        if displaced:
            repeated = actions.detach().repeat(len(displaced), 1).requires_grad_()
            grads += _action_gradient(critic, _stack(displaced), repeated).split(len(actions), dim=1)
        return grads, None if direction is None else _projected_curvature(grads[0], leaf, direction), None


def _action_gradient(critic: nn.Module, observations: PyTorchObs, actions: th.Tensor) -> th.Tensor:
    """``∇_a Q`` with its graph, shape (n_critics, batch, action_dim)."""
    grads = []
    for values in _critic_values(critic(observations, actions)):
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


def _critic_values(output: Any) -> tuple[th.Tensor, ...]:
    """One (batch,) tensor per critic from a critic's output; quantiles enter by their mean."""
    if isinstance(output, th.Tensor) and output.dim() == 3:
        return output.mean(dim=2).unbind(dim=1)
    return tuple(values.squeeze(dim=1) for values in output)


def _stack(points: list[PyTorchObs]) -> PyTorchObs:
    if isinstance(points[0], dict):
        return {key: th.cat([point[key] for point in points]) for key in points[0]}  # type: ignore[index]
    return th.cat(points)  # type: ignore[arg-type]


@contextmanager
def _evaluating(module: nn.Module, unless: bool = False) -> Iterator[None]:
    """Every submodule in evaluation mode inside the block, in its own mode again after it."""
    training = [] if unless else [submodule for submodule in module.modules() if submodule.training]
    for submodule in training:
        submodule.training = False
    try:
        yield
    finally:
        for submodule in training:
            submodule.training = True
