"""
The closed form as a function that autograd can differentiate by parameters and features, through its own ``pull_back``.
"""

from typing import Any

import torch as th

from sb3_pave.fast.eligibility import has_closed_form
from sb3_pave.fast.ensemble import Ensemble, activations_of_mlp, ensemble
from sb3_pave.fast.folding import folded_parameters, without_normalization
from sb3_pave.fast.mlp_field import Field, evaluate, pull_back
from sb3_pave.fast.stacked_points import stacked_points
from sb3_pave.method.field import GradientField, gradient_field, split_field
from sb3_pave.method.points import FieldInputs


class _ClosedForm(th.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features, actions, direction, n_values, field_from, activations, *parameters) -> Field:
        n_layers = len(parameters) // 2
        networks = Ensemble(parameters[:n_layers], parameters[n_layers:], activations)
        results, ctx.tape = evaluate(networks, features, actions, direction, n_values, field_from)
        ctx.rows = n_values, field_from
        return results

    @staticmethod
    @th.autograd.function.once_differentiable
    def backward(ctx: Any, *bars: Any) -> tuple[Any, ...]:
        features, *_ = needs = ctx.needs_input_grad
        pulled = pull_back(ctx.tape, bars, *ctx.rows, to_features=features)
        bias_bars = [bar if needed else None for bar, needed in zip(pulled.biases, needs[-len(pulled.biases) :], strict=True)]
        return pulled.features, None, None, None, None, None, *pulled.weights, *bias_bars


def closed_form(networks, features, actions, direction, n_values=None, field_from=0) -> Field:
    """``evaluate`` of some networks (modules), with a graph to their parameters."""
    stacked = ensemble(list(map(folded_parameters, networks)), activations_of_mlp(without_normalization(networks[0])))
    n_values = len(features) if n_values is None else n_values
    parameters = (*stacked.weights, *stacked.biases)
    return _ClosedForm.apply(features, actions, direction, n_values, field_from, stacked.activations, *parameters)


def closed_form_field(critic: Any, inputs: FieldInputs) -> GradientField:
    """What ``gradient_field`` returns, by the closed form."""
    return closed_form_values_and_field(critic, inputs)[1]


def closed_form_values_and_field(critic: Any, inputs: FieldInputs) -> tuple[th.Tensor, GradientField]:
    """The networks' outputs at the batch in its order, shape (n_critics, batch, outputs), and the field."""
    features, actions, direction, n_values, field_from, order = stacked_points(critic, inputs)
    values, grad, curvature = closed_form(critic.q_networks, features, actions, direction, n_values, field_from)
    if order is not None:
        values = values[:, th.argsort(order)]
    return values, split_field(grad, curvature, tuple(inputs.displaced))


def order_ending_with(rows: th.Tensor, batch: int) -> th.Tensor:
    """A permutation of the batch, see ``FieldInputs``."""
    return th.tensor([row for row in range(batch) if row not in rows] + rows.tolist())


def field_in_training(critic: Any, inputs: FieldInputs) -> GradientField:
    """The field as an update evaluates it: by the closed form where there is one."""
    return (closed_form_field if has_closed_form(critic) else gradient_field)(critic, inputs)
