"""The gradient field of a multilayer perceptron in closed form, and the gradient of that with respect to its parameters."""

from typing import Any, NamedTuple

import torch as th
import torch.nn.functional as F
from torch import nn

from sb3_pave.activations import ACTIVATIONS, derivatives
from sb3_pave.matmul import affine, product


def is_mlp(network: nn.Module) -> bool:
    """
    Whether the closed form serves this network: exactly Linear, activation, Linear, ..., Linear, without hooks.

    :param network: one critic of an ensemble, taking ``[features, actions]``
    """
    # Exact types: a subclass or a parametrisation (spectral norm, say) may compute something else
    if type(network) is not nn.Sequential or len(network) % 2 == 0:
        return False
    layers = list(iter(network))
    linear = all(type(layer) is nn.Linear for layer in layers[::2])
    smooth = all(type(layer) in ACTIVATIONS for layer in layers[1::2])
    return linear and smooth and not any(map(_has_hooks, [network, *layers]))


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks)


def mlp_field(
    network: nn.Sequential,
    features: th.Tensor,
    actions: th.Tensor,
    direction: th.Tensor | None,
    n_values: int | None = None,
    field_from: int = 0,
) -> tuple[th.Tensor, th.Tensor, th.Tensor | None]:
    """
    Output, action gradient and projected curvature of a Linear-φ-…-Linear network ``Q([features, actions])``.

    With ``z_l = W_l h_{l-1} + b_l``, ``h_l = φ(z_l)``, ``u_l = ∂Q/∂h_l`` and ``e_l = u_l ∘ φ'(z_l)``, the gradient is the
    action columns of ``W_1ᵀ e_1``; with the tangents ``ṫ_1 = W_1^a v``, ``ṫ_{l+1} = W_{l+1} (φ'(z_l) ∘ ṫ_l)`` the curvature
    is ``vᵀ ∇²_aa Q v = Σ_l ⟨u_l ∘ φ''(z_l), ṫ_l²⟩``, since each activation bends the network along its own tangent only.
    A network with several outputs (quantiles) is read as their mean, which is linear in the last layer.

    The result can be differentiated once (with respect to parameters, features, actions and direction).

    :param network: a network for which ``is_mlp`` holds
    :param features: shape (rows, features_dim)
    :param actions: shape (rows, action_dim)
    :param direction: ``v``, shape (n, action_dim), of the first ``n`` rows of the field; None: no curvature
    :param n_values: evaluate ``Q`` at the first rows only; None: at all
    :param field_from: the row from which on the field is evaluated
    :return: ``Q`` of shape (n_values, outputs), ``∇_a Q`` of shape (rows - field_from, action_dim) and ``vᵀ ∇²_aa Q v`` of
        shape (n,) or None
    """
    modules: list[Any] = list(network)
    parameters = [parameter for linear in modules[::2] for parameter in (linear.weight, linear.bias)]
    n_values = len(features) if n_values is None else n_values
    return _MlpField.apply(features, actions, direction, modules[1::2], n_values, field_from, *parameters)


class _Layer(NamedTuple):
    """
    What the backward pass needs of a hidden layer, in the names of ``mlp_field``.

    Of all rows: ``before`` is ``h_{l-1}``, ``first`` is ``φ'(z_l)``. Of the field's rows: ``second`` is ``φ''(z_l)``,
    ``slope`` is ``u_l``, ``error`` is ``e_l``. Of the tangent's rows: ``third`` is ``φ'''(z_l)``, ``bend`` is
    ``u_l ∘ φ''(z_l)``, ``tangent`` is ``ṫ_l`` and ``tangent_before`` is ``φ'(z_{l-1}) ∘ ṫ_{l-1}``, or ``v``.
    None where a derivative is zero or there is no tangent.
    """

    before: th.Tensor
    first: th.Tensor
    second: Any
    third: Any
    slope: th.Tensor
    error: th.Tensor
    bend: Any
    tangent: Any
    tangent_before: Any


class _MlpField(th.autograd.Function):
    """``mlp_field`` with its gradient written out; ``x_bar`` below is the loss's gradient with respect to ``x``."""

    @staticmethod
    def forward(
        ctx: Any,
        features: th.Tensor,
        actions: th.Tensor,
        direction: th.Tensor | None,
        activations: list[nn.Module],
        n_values: int,
        field_from: int,
        *parameters: Any,
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor | None]:
        weights, biases = parameters[::2], parameters[1::2]
        action_weight = weights[0][:, features.shape[1] :].contiguous()
        into = [action_weight, *weights[1:]]  # from the action on
        n_tangents = 0 if direction is None else len(direction)
        field, tangents = slice(field_from, None), slice(field_from, field_from + n_tangents)

        hiddens = [th.cat([features, actions], dim=1)]
        phis = []
        for weight, bias, activation in zip(weights[:-1], biases, activations, strict=False):
            phis.append(derivatives(activation, affine(hiddens[-1], weight, bias), field, tangents))
            hiddens.append(phis[-1].value)
        values = affine(hiddens[-1][:n_values], weights[-1], biases[-1])

        slopes, errors = [], []  # from the last hidden layer to the first
        slope = into[-1].mean(dim=0, keepdim=True)
        for weight, phi in zip(reversed(into[:-1]), reversed(phis), strict=True):
            slopes.append(slope)
            errors.append(slope * phi.first[field])
            slope = product(errors[-1], weight)
        gradient = slope.expand(len(actions) - field_from, -1).contiguous()

        curvature = None if direction is None else direction.new_zeros(n_tangents)
        tangent_before: Any = direction
        layers = []
        for i, (phi, slope, error) in enumerate(zip(phis, reversed(slopes), reversed(errors), strict=True)):
            tangent = bend = None
            if curvature is not None:
                tangent = product(tangent_before, into[i].T)
                if phi.second is not None:
                    bend = slope[:n_tangents] * phi.second[:n_tangents]
                    curvature += (bend * tangent).mul_(tangent).sum(dim=1)
            layers.append(_Layer(hiddens[i], phi.first, phi.second, phi.third, slope, error, bend, tangent, tangent_before))
            tangent_before = None if tangent is None else phi.first[tangents] * tangent

        ctx.save_for_backward(hiddens[-1], weights[0], *into, *(tensor for layer in layers for tensor in layer))
        ctx.n_layers, ctx.n_rows, ctx.n_values, ctx.field_from = len(layers), len(features), n_values, field_from
        ctx.features_dim, ctx.has_bias = features.shape[1], [bias is not None for bias in biases]
        return values, gradient, curvature

    @staticmethod
    def backward(ctx: Any, values_bar: th.Tensor, gradient_bar: th.Tensor, curvature_bar: th.Tensor | None) -> tuple[Any, ...]:
        if th.is_grad_enabled() and not th.compiler.is_compiling():
            # create_graph=True: the result would pass for a constant
            raise RuntimeError("The closed form of the gradient field can be differentiated once, not twice.")
        last, first_weight, *rest = ctx.saved_tensors
        into, per_layer = rest[: ctx.n_layers + 1], rest[ctx.n_layers + 1 :]
        width = len(_Layer._fields)
        layers = [_Layer(*per_layer[i : i + width]) for i in range(0, len(per_layer), width)]
        weights = [first_weight, *into[1:]]
        _, actions_need, direction_needs = ctx.needs_input_grad[:3]
        inputs_need = ctx.needs_input_grad[0] or actions_need

        bars = _Bars([None] * len(into), [None] * len(layers), [None] * len(layers))
        direction_bar = None
        if curvature_bar is not None:
            direction_bar = _tangents_backward(layers, into, curvature_bar, ctx.field_from, bars, direction_needs)
        _field_backward(layers, into, gradient_bar, ctx.field_from, bars)

        # Then the values, from the output to the input
        weight_bars, bias_bars = [product(values_bar.T, last[: ctx.n_values])], [values_bar.sum(dim=0)]
        hidden_bar = product(values_bar, weights[-1])
        for i in reversed(range(len(layers))):
            z_bar = _of_all_rows(bars.z[i], hidden_bar, layers[i].first, ctx.field_from)
            weight_bars.append(product(z_bar.T, layers[i].before[: len(z_bar)]))
            bias_bars.append(z_bar.sum(dim=0))
            if i > 0 or inputs_need:
                hidden_bar = product(z_bar, weights[i])
        for weight_bar, into_bar in zip(reversed(weight_bars), bars.into, strict=True):
            # Of the first layer, the field sees the action's columns
            weight_bar[:, weight_bar.shape[1] - into_bar.shape[1] :] += into_bar

        inputs_bar: list[Any] = [None, None]
        if inputs_need:
            padded = F.pad(hidden_bar, (0, 0, 0, ctx.n_rows - len(hidden_bar)))
            inputs_bar = [padded[:, : ctx.features_dim], padded[:, ctx.features_dim :]]
        parameter_bars = []
        for weight_bar, bias_bar, has_bias in zip(reversed(weight_bars), reversed(bias_bars), ctx.has_bias, strict=True):
            parameter_bars += [weight_bar, bias_bar if has_bias else None]
        return *inputs_bar, direction_bar, None, None, None, *parameter_bars


class _Bars(NamedTuple):
    """
    The loss's gradients through tangent and field, one a layer, None where there is none yet.

    :param into: with respect to the weights that the action goes through
    :param z: with respect to ``z_l`` of the leading rows of the field
    :param slope: with respect to ``u_l`` of the leading rows of the field
    """

    into: list[Any]
    z: list[Any]
    slope: list[Any]


def _tangents_backward(
    layers: list[_Layer], into: list[th.Tensor], curvature_bar: th.Tensor, field_from: int, bars: _Bars, to_direction: bool
) -> th.Tensor | None:
    """Fill the bars with what comes through ``Σ_l ⟨u_l ∘ φ''(z_l), ṫ_l²⟩``, from the last layer to the first."""
    n = len(curvature_bar)
    scale = curvature_bar.unsqueeze(dim=1)
    image_bar = None  # with respect to φ'(z_l) ∘ ṫ_l
    for i in reversed(range(len(layers))):
        layer = layers[i]
        first = layer.first[field_from : field_from + n]
        tangent_bar = None if image_bar is None else image_bar * first
        if layer.second is not None:
            scaled = scale * layer.tangent
            squared = scaled * layer.tangent
            bars.slope[i] = squared * layer.second[:n]
            bars.z[i] = squared.mul_(layer.slope[:n]).mul_(layer.third)
            own_bar = scaled.mul_(layer.bend).mul_(2)
            if image_bar is not None:
                bars.z[i].addcmul_(image_bar.mul_(layer.tangent), layer.second[:n])
            tangent_bar = own_bar if tangent_bar is None else tangent_bar.add_(own_bar)
        if tangent_bar is not None:
            bars.into[i] = product(tangent_bar.T, layer.tangent_before)
            image_bar = product(tangent_bar, into[i]) if i > 0 or to_direction else None
    return image_bar if to_direction else None


def _field_backward(
    layers: list[_Layer], into: list[th.Tensor], gradient_bar: th.Tensor, field_from: int, bars: _Bars
) -> None:
    """Add to the bars what comes through ``u_{l-1} = W_lᵀ e_l``, from the action to the output."""
    slope_bar = gradient_bar
    for i, layer in enumerate(layers):
        _accumulate(bars.into, i, product(layer.error.T, slope_bar))
        error_bar = product(slope_bar, into[i].T)
        slope_bar = error_bar * layer.first[field_from:]
        if bars.slope[i] is not None:
            slope_bar = _add_to_first_rows(slope_bar, bars.slope[i])
        if layer.second is not None:
            z_bar = error_bar.mul_(layer.slope).mul_(layer.second)
            bars.z[i] = z_bar if bars.z[i] is None else _add_to_first_rows(z_bar, bars.z[i])
    outputs = len(into[-1])
    _accumulate(bars.into, -1, (slope_bar.sum(dim=0) / outputs).expand(outputs, -1))


def _accumulate(bars: list[Any], i: int, bar: th.Tensor) -> None:
    bars[i] = bar if bars[i] is None else bars[i].add_(bar)


def _of_all_rows(z_bar: th.Tensor | None, hidden_bar: th.Tensor, first: th.Tensor, field_from: int) -> th.Tensor:
    """The sum of ``z_bar``, of the rows from ``field_from`` on, and ``hidden_bar ∘ φ'(z)``, of the first rows."""
    n_rows = len(hidden_bar)
    if z_bar is None:
        return hidden_bar.mul_(first[:n_rows])
    if field_from > 0:
        z_bar = th.cat([z_bar.new_zeros(field_from, z_bar.shape[1]), z_bar])
    return _add_to_first_rows(z_bar, hidden_bar.mul_(first[:n_rows]))


def _add_to_first_rows(matrix: th.Tensor, rows: th.Tensor) -> th.Tensor:
    if th.compiler.is_compiling():
        # It makes slow loops of an update of some rows
        return matrix + F.pad(rows, (0, 0, 0, len(matrix) - len(rows)))
    matrix[: len(rows)] += rows
    return matrix
