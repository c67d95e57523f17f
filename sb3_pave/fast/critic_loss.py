"""The loss of an MLP critic with its gradient; equals the TD loss plus ``method.terms.evaluate_terms`` and autograd."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch as th
from torch import nn

from sb3_pave.fast.compiled import compiled
from sb3_pave.fast.differentiated import Differentiated
from sb3_pave.fast.ensemble import Ensemble, Parameters, activations_of_mlp, ensemble, ensemble_in_memory
from sb3_pave.fast.folding import folded_parameters, without_normalization
from sb3_pave.fast.mlp_field import evaluate, pull_back
from sb3_pave.fast.stacked_points import StackedPoints, stacked_points
from sb3_pave.method.field import split_field
from sb3_pave.method.losses import pave_losses, signals, weighted_sum
from sb3_pave.method.terms import Terms


class TdError(NamedTuple):
    """
    What the TD loss is made of.

    :param output: what the critic returns, of its networks' outputs of shape (n_critics, batch, outputs)
    :param loss: the TD loss, of that and the target
    :param target: the target, whose rows are the batch's
    :param share: what the terms are multiplied by: a function, without gradient, of the critic's output, the target and the
        TD loss; None: 1
    """

    output: Callable[[th.Tensor], Any]
    loss: Callable[[Any, th.Tensor], th.Tensor]
    target: th.Tensor
    share: Callable[[Any, th.Tensor, th.Tensor], th.Tensor] | None = None


def mlp_critic_loss(
    critic: Any, terms: Terms, td: TdError | None, compile: bool
) -> tuple[Differentiated, dict[str, th.Tensor]]:
    """
    ``L_TD + λ1 L_MPR + λ2 L_VFC + λ3 L_Curv`` by the closed form.

    :param critic: one that has a closed form
    :param terms: the three terms at the batch
    :param td: of the batch, where the critic is the same in training and evaluation mode; None: the other terms only
    :param compile: through ``torch.compile``
    :return: the loss, and what the log shows of it
    """
    points = stacked_points(critic, terms.inputs)
    if td is not None and points.order is not None:
        td = td._replace(target=td.target[points.order])
    # Under the user's autocast there would be little left of second derivatives, and gradients of another type
    with th.autocast(points.actions.device.type, enabled=False):
        return _critic_loss(critic, terms, td, compile, points)


def _critic_loss(
    critic: Any, terms: Terms, td: TdError | None, compile: bool, points: StackedPoints
) -> tuple[Differentiated, dict[str, th.Tensor]]:
    networks = tuple(map(folded_parameters, critic.q_networks))
    activations = activations_of_mlp(without_normalization(critic.q_networks[0]))
    stack = ensemble_in_memory(networks, activations)
    numbers: Sequence[Any] = (*terms.coefs, terms.delta)
    if compile:
        # As tensors: numbers would be compiled in
        device = points.actions.device
        numbers = [n if isinstance(n, th.Tensor) else th.full((), n, device=device) for n in numbers]
    evaluate_it = compiled(loss_and_gradient) if compile else loss_and_gradient
    displaced, detached = tuple(terms.inputs.displaced), points._replace(features=points.features.detach())
    to_features = points.features.requires_grad
    values = tuple(tuple(None if p is None else p.detach() for p in network) for network in networks)
    with th.no_grad():
        scalars, gradients, features_gradient = evaluate_it(
            values, activations, stack, detached, displaced, td, numbers, terms.has_successor, to_features
        )
    pairs = [pair for pair in zip(sum(networks, ()), gradients, strict=True) if pair[0] is not None]
    if features_gradient is not None:
        pairs.append((points.features, features_gradient))
    return Differentiated(scalars.pop("loss"), *zip(*pairs, strict=True)), scalars


def loss_and_gradient(
    networks: Sequence[Parameters],
    activations: tuple[nn.Module, ...],
    stack: Ensemble | None,
    points: StackedPoints,
    displaced: tuple[str, ...],
    td: TdError | None,
    numbers: Sequence[Any],
    has_successor: th.Tensor | None,
    to_features: bool,
) -> tuple[dict[str, th.Tensor], list[th.Tensor], th.Tensor | None]:
    """
    What ``mlp_critic_loss`` compiles; to be called without gradients.

    :param networks: parameters of the critics
    :param activations: of their hidden layers
    :param stack: of the parameters, where they lie like that in memory
    :param points: where the field is evaluated
    :param displaced: what the displaced states are for, see ``split_field``
    :param td: as there, in the order of the points
    :param numbers: ``(λ1, λ2, λ3, δ)``, numbers or scalar tensors
    :param has_successor: as there
    :param to_features: whether the gradient with respect to the features is wanted
    :return: the loss and what the log shows of it, the gradients with respect to all parameters, in their order, and the one
        with respect to the features
    """
    *coefs, delta = numbers
    n_values, field_from = points.n_values, points.field_from
    critics = ensemble(networks, activations) if stack is None else stack
    field, tape = evaluate(critics, points.features, points.actions, points.direction, n_values, field_from)

    def loss(values: th.Tensor, grad: th.Tensor, curvature: th.Tensor | None = None) -> tuple[th.Tensor, dict[str, th.Tensor]]:
        field = split_field(grad, curvature, displaced)
        losses = pave_losses(field, delta, has_successor)
        total, scalars = weighted_sum(losses, coefs), signals(field, losses)
        if td is not None:
            current = td.output(values)
            scalars["td_loss"] = td.loss(current, td.target)
            if td.share is not None:
                scalars["huber_share"] = td.share(current, td.target, scalars["td_loss"])
                total = scalars["huber_share"] * total
            total = scalars["critic_loss"] = scalars["td_loss"] + total
        return total, {**scalars, "loss": total}

    bars, scalars = _gradient(loss, [part for part in field if part is not None])
    pulled = pull_back(tape, (*bars, None)[:3], n_values, field_from, to_features)
    pairs = zip(pulled.weights, pulled.biases, strict=True)
    layers = [bar for weight, bias in pairs for bar in (weight, bias.squeeze(dim=1))]
    gradients = [layer[i].contiguous() for i in range(len(networks)) for layer in layers]
    return scalars, gradients, pulled.features


def _gradient(
    loss: Callable[..., tuple[th.Tensor, dict[str, th.Tensor]]], inputs: list[th.Tensor]
) -> tuple[tuple[th.Tensor, ...], dict[str, th.Tensor]]:
    """The gradient of a function's first result with respect to its inputs, and its second result."""
    if th.compiler.is_compiling():
        # The other way is the faster one without the compiler, which can't take it
        return th.func.grad(loss, argnums=tuple(range(len(inputs))), has_aux=True)(*inputs)
    with th.enable_grad():
        leaves = [result.detach().requires_grad_() for result in inputs]
        value, scalars = loss(*leaves)
        return th.autograd.grad(value, leaves, materialize_grads=True), scalars
