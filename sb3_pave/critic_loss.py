"""The loss of an MLP critic and its gradient as one function of tensors: one graph for ``torch.compile``."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch as th
from torch import nn

from sb3_pave.compiled import compiled
from sb3_pave.differentiated import Differentiated
from sb3_pave.ensemble import Parameters, activations_of_mlp, ensemble, parameters_of_mlp
from sb3_pave.field import split_field
from sb3_pave.losses import pave_losses, signals, weighted_sum
from sb3_pave.mlp_field import evaluate, pull_back
from sb3_pave.points import FieldInputs, StackedPoints, stacked_points


class TdError(NamedTuple):
    """
    What the TD loss is made of.

    :param output: what the critic returns, of its networks' outputs of shape (n_critics, batch, outputs)
    :param loss: the TD loss, of that and the target
    :param target: the target, whose rows are the batch's
    """

    output: Callable[[th.Tensor], Any]
    loss: Callable[[Any, th.Tensor], th.Tensor]
    target: th.Tensor


def compiled_critic_loss(
    critic: Any,
    inputs: FieldInputs,
    td: TdError | None,
    coefs: Sequence[float],
    delta: float,
    has_successor: th.Tensor | None,
) -> tuple[Differentiated, dict[str, th.Tensor]]:
    """
    ``L_TD + λ1 L_MPR + λ2 L_VFC + λ3 L_Curv`` through ``torch.compile``.

    :param critic: one that has a closed form
    :param inputs: where the field is asked for
    :param td: of the batch; None: the other terms only
    :param coefs: ``(λ1, λ2, λ3)``
    :param delta: ``δ``
    :param has_successor: see ``pave_losses``
    :return: the loss, and what the log shows of it
    """
    points = stacked_points(critic, inputs)
    if td is not None and points.order is not None:
        td = td._replace(target=td.target[points.order])
    networks = tuple(map(parameters_of_mlp, critic.q_networks))
    arguments = (
        networks,
        activations_of_mlp(critic.q_networks[0]),
        points._replace(features=points.features.detach()),
        tuple(inputs.displaced),
        td,
        [th.full((), number, device=points.actions.device) for number in (*coefs, delta)],
        has_successor,
        points.features.requires_grad,
    )
    with th.no_grad():
        scalars, gradients, features_gradient = compiled(critic_loss_and_gradient)(*arguments)
    pairs = [pair for pair in zip(sum(networks, ()), gradients, strict=True) if pair[0] is not None]
    if features_gradient is not None:
        pairs.append((points.features, features_gradient))
    tensors, gradients = zip(*pairs, strict=True)
    return Differentiated(scalars.pop("loss"), tensors, gradients), scalars


def critic_loss_and_gradient(
    networks: Sequence[Parameters],
    activations: tuple[nn.Module, ...],
    points: StackedPoints,
    displaced: tuple[str, ...],
    td: TdError | None,
    numbers: Sequence[th.Tensor],
    has_successor: th.Tensor | None,
    to_features: bool,
) -> tuple[dict[str, th.Tensor], list[th.Tensor], th.Tensor | None]:
    """
    What ``compiled_critic_loss`` compiles.

    :param networks: parameters of the critics
    :param activations: of their hidden layers
    :param points: where the field is evaluated
    :param displaced: what the displaced states are for, see ``split_field``
    :param td: as there, in the order of the points
    :param numbers: ``(λ1, λ2, λ3, δ)``, scalar tensors: numbers would be compiled in
    :param has_successor: as there
    :param to_features: whether the gradient with respect to the features is wanted
    :return: the loss and what the log shows of it, the gradients with respect to all parameters, in their order, and the one
        with respect to the features
    """
    *coefs, delta = numbers
    features, actions, direction, n_values, field_from, _ = points
    results, tape = evaluate(ensemble(networks, activations), features, actions, direction, n_values, field_from)

    def loss(values: th.Tensor, grad: th.Tensor, curvature: th.Tensor | None = None) -> tuple[th.Tensor, dict[str, th.Tensor]]:
        field = split_field(grad, curvature, displaced)
        losses = pave_losses(field, delta, has_successor)
        total, scalars = weighted_sum(losses, coefs), signals(field, losses)
        if td is not None:
            scalars["td_loss"] = td.loss(td.output(values), td.target)
            total = scalars["critic_loss"] = scalars["td_loss"] + total
        return total, {**scalars, "loss": total}

    given = [result for result in results if result is not None]
    bars, scalars = th.func.grad(loss, argnums=tuple(range(len(given))), has_aux=True)(*given)
    pulled = pull_back(tape, (*bars, None)[:3], n_values, field_from, to_inputs=to_features)
    layers = [bar for weight, bias in zip(pulled.weights, pulled.biases, strict=True) for bar in (weight, bias.squeeze(dim=1))]
    gradients = [layer[i].contiguous() for i in range(len(networks)) for layer in layers]
    return scalars, gradients, pulled.inputs[0]
