"""The gradient field of MLPs in closed form, and its gradient; equals ``method.field.gradient_field`` and autograd."""

from typing import Any, NamedTuple

import torch as th
import torch.nn.functional as F

from sb3_pave.fast.activations import derivatives
from sb3_pave.fast.ensemble import Ensemble
from sb3_pave.fast.matmul import affine, product

# Values, gradient and curvature
Field = tuple[th.Tensor, th.Tensor, th.Tensor | None]


class _Layer(NamedTuple):
    """
    What the backward pass needs of a hidden layer, in the names of ``evaluate``; the networks come first in each shape.

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


class Tape(NamedTuple):
    """
    What ``evaluate`` leaves for ``pull_back``.

    :param features: the inputs' other part than the action
    :param last: ``h`` of the last hidden layer
    :param weights: ``W`` of each layer
    :param into: likewise, of the first layer the action's columns only: the weights that the action goes through
    :param layers: the hidden layers
    """

    features: th.Tensor
    last: th.Tensor
    weights: tuple[th.Tensor, ...]
    into: tuple[th.Tensor, ...]
    layers: tuple[_Layer, ...]


def evaluate(
    networks: Ensemble,
    features: th.Tensor,
    actions: th.Tensor,
    direction: th.Tensor | None,
    n_values: int,
    field_from: int,
) -> tuple[Field, Tape]:
    """
    Output, action gradient and projected curvature of ``n`` Linear-φ-…-Linear networks ``Q([features, actions])``, without a
    graph.

    With ``z_l = W_l h_{l-1} + b_l``, ``h_l = φ(z_l)``, ``u_l = ∂Q/∂h_l`` and ``e_l = u_l ∘ φ'(z_l)``, the gradient is the
    action columns of ``W_1ᵀ e_1``; with the tangents ``ṫ_1 = W_1^a v``, ``ṫ_{l+1} = W_{l+1} (φ'(z_l) ∘ ṫ_l)`` the curvature
    is ``vᵀ ∇²_aa Q v = Σ_l ⟨u_l ∘ φ''(z_l), ṫ_l²⟩``, since each activation bends the network along its own tangent only.
    A network with several outputs (quantiles) is read as their mean, which is linear in the last layer.

    :param networks: the networks
    :param features: shape (rows, features_dim)
    :param actions: shape (rows, action_dim)
    :param direction: ``v``, shape (k, action_dim), of the first ``k`` rows of the field; None: no curvature
    :param n_values: evaluate ``Q`` at the first rows only
    :param field_from: the row from which on the field is evaluated
    :return: ``Q`` of shape (n, n_values, outputs), ``∇_a Q`` of shape (n, rows - field_from, action_dim) and
        ``vᵀ ∇²_aa Q v`` of shape (n, k) or None; and what ``pull_back`` needs of the way to them
    """
    weights, biases = networks.weights, networks.biases
    n = len(weights[0])
    into = (weights[0][..., features.shape[1] :].contiguous(), *weights[1:])
    n_tangents = 0 if direction is None else len(direction)
    field = (slice(None), slice(field_from, None))
    tangents = (slice(None), slice(field_from, field_from + n_tangents))

    hiddens = [th.cat([features, actions], dim=1).expand(n, -1, -1)]
    phis = []
    for weight, bias, activation in zip(weights[:-1], biases, networks.activations, strict=False):
        phis.append(derivatives(activation, affine(hiddens[-1], weight, bias), field, tangents))
        hiddens.append(phis[-1].value)
    values = affine(hiddens[-1][:, :n_values], weights[-1], biases[-1])

    slopes, errors = [], []  # from the last hidden layer to the first
    slope = into[-1].mean(dim=1, keepdim=True)
    for weight, phi in zip(reversed(into[:-1]), reversed(phis), strict=True):
        slopes.append(slope)
        errors.append(slope * phi.first[field])
        slope = product(errors[-1], weight)
    gradient = slope.expand(-1, len(actions) - field_from, -1).contiguous()

    curvature = None if direction is None else direction.new_zeros(n, n_tangents)
    tangent_before: Any = None if direction is None else direction.expand(n, -1, -1)
    layers = []
    for i, (phi, slope, error) in enumerate(zip(phis, reversed(slopes), reversed(errors), strict=True)):
        tangent = bend = None
        if curvature is not None:
            tangent = product(tangent_before, into[i].mT)
            if phi.second is not None:
                bend = slope[:, :n_tangents] * phi.second[:, :n_tangents]
                curvature += (bend * tangent).mul_(tangent).sum(dim=2)
        layers.append(_Layer(hiddens[i], phi.first, phi.second, phi.third, slope, error, bend, tangent, tangent_before))
        tangent_before = None if tangent is None else phi.first[tangents] * tangent
    return (values, gradient, curvature), Tape(features, hiddens[-1], weights, into, tuple(layers))


class Gradient(NamedTuple):
    """
    The loss's gradient: ``x_bar`` is that with respect to ``x``, here and in the functions below.

    :param weights: with respect to each layer's weights
    :param biases: with respect to each layer's biases
    :param features: with respect to the features, or None
    """

    weights: tuple[th.Tensor, ...]
    biases: tuple[th.Tensor, ...]
    features: th.Tensor | None


def pull_back(tape: Tape, bars: tuple[Any, ...], n_values: int, field_from: int, to_features: bool = False) -> Gradient:
    """
    Reverse-mode differentiation of ``evaluate``, written out.

    :param tape: from ``evaluate``
    :param bars: the loss's gradients with respect to its three results; None where there is no curvature
    :param n_values: as given to ``evaluate``
    :param field_from: as given to ``evaluate``
    :param to_features: whether that with respect to the features is wanted
    """
    values_bar, gradient_bar, curvature_bar = bars
    layers, weights = tape.layers, tape.weights
    through = _Bars([None] * len(weights), [None] * len(layers), [None] * len(layers))
    if curvature_bar is not None:
        _through_tangents(layers, tape.into, curvature_bar, field_from, through)
    _through_field(layers, tape.into, gradient_bar, field_from, through)

    # Then the values, from the output to the input
    weight_bars, bias_bars = [product(values_bar.mT, tape.last[:, :n_values])], [values_bar.sum(dim=1, keepdim=True)]
    hidden_bar = product(values_bar, weights[-1])
    for i in reversed(range(len(layers))):
        z_bar = _of_all_rows(through.z[i], hidden_bar, layers[i].first, field_from)
        weight_bars.append(product(z_bar.mT, layers[i].before[:, : z_bar.shape[1]]))
        bias_bars.append(z_bar.sum(dim=1, keepdim=True))
        if i > 0 or to_features:
            hidden_bar = product(z_bar, weights[i])
    for weight_bar, into_bar in zip(reversed(weight_bars), through.into, strict=True):
        # Of the first layer, the field sees the action's columns
        weight_bar[..., weight_bar.shape[2] - into_bar.shape[2] :].add_(into_bar)

    features_bar = None
    if to_features:
        # All networks have the same
        n_rows, features_dim = tape.features.shape
        features_bar = F.pad(hidden_bar[..., :features_dim].sum(dim=0), (0, 0, 0, n_rows - hidden_bar.shape[1]))
    return Gradient(tuple(reversed(weight_bars)), tuple(reversed(bias_bars)), features_bar)


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


def _through_tangents(
    layers: tuple[_Layer, ...], into: tuple[th.Tensor, ...], curvature_bar: th.Tensor, field_from: int, bars: _Bars
) -> None:
    """Fill the bars with what comes through ``Σ_l ⟨u_l ∘ φ''(z_l), ṫ_l²⟩``, from the last layer to the first."""
    n = curvature_bar.shape[1]
    scale = curvature_bar.unsqueeze(dim=2)
    image_bar = None  # with respect to φ'(z_l) ∘ ṫ_l
    for i in reversed(range(len(layers))):
        layer = layers[i]
        first = layer.first[:, field_from : field_from + n]
        tangent_bar = None if image_bar is None else image_bar * first
        if layer.second is not None:
            scaled = scale * layer.tangent
            squared = scaled * layer.tangent
            bars.slope[i] = squared * layer.second[:, :n]
            bars.z[i] = squared.mul_(layer.slope[:, :n]).mul_(layer.third)
            own_bar = scaled.mul_(layer.bend).mul_(2)
            if image_bar is not None:
                bars.z[i].addcmul_(image_bar.mul_(layer.tangent), layer.second[:, :n])
            tangent_bar = own_bar if tangent_bar is None else tangent_bar.add_(own_bar)
        if tangent_bar is not None:
            bars.into[i] = product(tangent_bar.mT, layer.tangent_before)
            image_bar = product(tangent_bar, into[i]) if i > 0 else None


def _through_field(
    layers: tuple[_Layer, ...], into: tuple[th.Tensor, ...], gradient_bar: th.Tensor, field_from: int, bars: _Bars
) -> None:
    """Add to the bars what comes through ``u_{l-1} = W_lᵀ e_l``, from the action to the output."""
    slope_bar = gradient_bar
    for i, layer in enumerate(layers):
        _accumulate(bars.into, i, product(layer.error.mT, slope_bar))
        error_bar = product(slope_bar, into[i].mT)
        slope_bar = error_bar * layer.first[:, field_from:]
        if bars.slope[i] is not None:
            slope_bar = _add_to_first_rows(slope_bar, bars.slope[i])
        if layer.second is not None:
            z_bar = error_bar.mul_(layer.slope).mul_(layer.second)
            bars.z[i] = z_bar if bars.z[i] is None else _add_to_first_rows(z_bar, bars.z[i])
    outputs = into[-1].shape[1]
    _accumulate(bars.into, -1, (slope_bar.sum(dim=1, keepdim=True) / outputs).expand(-1, outputs, -1))


def _accumulate(bars: list[Any], i: int, bar: th.Tensor) -> None:
    bars[i] = bar if bars[i] is None else bars[i].add_(bar)


def _of_all_rows(z_bar: th.Tensor | None, hidden_bar: th.Tensor, first: th.Tensor, field_from: int) -> th.Tensor:
    """The sum of ``z_bar``, of the rows from ``field_from`` on, and ``hidden_bar ∘ φ'(z)``, of the first rows."""
    n_rows = hidden_bar.shape[1]
    hidden_bar = hidden_bar.mul_(first[:, :n_rows])
    if z_bar is None:
        return hidden_bar
    if field_from > 0:
        both = n_rows - field_from
        parts = [hidden_bar[:, :field_from], hidden_bar[:, field_from:] + z_bar[:, :both], z_bar[:, both:]]
        return th.cat(parts, dim=1)
    return _add_to_first_rows(z_bar, hidden_bar)


def _add_to_first_rows(matrix: th.Tensor, rows: th.Tensor) -> th.Tensor:
    if th.compiler.is_compiling():
        # It makes slow loops of an update of some rows
        return matrix + F.pad(rows, (0, 0, 0, matrix.shape[1] - rows.shape[1]))
    matrix[:, : rows.shape[1]].add_(rows)  # += would copy the part onto itself
    return matrix
