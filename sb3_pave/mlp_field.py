"""The gradient field of a multilayer perceptron in closed form: one explicit backward pass, no double backward."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch as th
import torch.nn.functional as F
from torch import nn


class Derivatives(NamedTuple):
    """
    An activation and its derivatives at the pre-activations ``z``.

    :param value: ``φ(z)``, of the shape of ``z``
    :param first: ``φ'(z)``, of the shape of ``z``
    :param second: ``φ''`` of the first ``n_second`` rows of ``z``, or None where it is zero or not asked for
    """

    value: th.Tensor
    first: th.Tensor
    second: th.Tensor | None


# Each entry takes (activation module, z, n_second): only the replayed states need the second derivative.
_Rule = Callable[[nn.Module, th.Tensor, int], Derivatives]


def _silu(_: nn.Module, z: th.Tensor, n_second: int) -> Derivatives:
    s = th.sigmoid(z)
    value = z * s
    first = th.addcmul(s, value, 1 - s)
    if n_second == 0:
        return Derivatives(value, first, None)
    z, s = z[:n_second], s[:n_second]
    return Derivatives(value, first, s * (1 - s) * (2 + z * (1 - 2 * s)))


def _tanh(_: nn.Module, z: th.Tensor, n_second: int) -> Derivatives:
    value = th.tanh(z)
    first = 1 - value * value
    return Derivatives(value, first, -2 * value[:n_second] * first[:n_second] if n_second else None)


def _sigmoid(_: nn.Module, z: th.Tensor, n_second: int) -> Derivatives:
    value = th.sigmoid(z)
    first = value * (1 - value)
    return Derivatives(value, first, first[:n_second] * (1 - 2 * value[:n_second]) if n_second else None)


def _softplus(module: nn.Module, z: th.Tensor, n_second: int) -> Derivatives:
    assert isinstance(module, nn.Softplus)
    # PyTorch's softplus is the identity above its threshold
    linear = z * module.beta > module.threshold
    s = th.sigmoid(module.beta * z)
    value = F.softplus(z, module.beta, module.threshold)
    first = s.masked_fill(linear, 1.0)
    if n_second == 0:
        return Derivatives(value, first, None)
    s = s[:n_second]
    return Derivatives(value, first, (module.beta * s * (1 - s)).masked_fill(linear[:n_second], 0.0))


def _mish(_: nn.Module, z: th.Tensor, n_second: int) -> Derivatives:
    s, t = th.sigmoid(z), th.tanh(F.softplus(z))
    slope = (1 - t * t) * s  # of t
    value, first = z * t, t + z * slope
    if n_second == 0:
        return Derivatives(value, first, None)
    z, s, t, slope = z[:n_second], s[:n_second], t[:n_second], slope[:n_second]
    return Derivatives(value, first, slope * (2 + z * (1 - s - 2 * t * s)))


def _gelu(module: nn.Module, z: th.Tensor, n_second: int) -> Derivatives:
    assert isinstance(module, nn.GELU)
    if module.approximate == "tanh":
        return _gelu_tanh(z, n_second)
    cdf = 0.5 * (1 + th.erf(z * 0.7071067811865476))
    pdf = th.exp(-0.5 * z * z) * 0.3989422804014327
    value, first = z * cdf, cdf + z * pdf
    if n_second == 0:
        return Derivatives(value, first, None)
    z, pdf = z[:n_second], pdf[:n_second]
    return Derivatives(value, first, pdf * (2 - z * z))


def _gelu_tanh(z: th.Tensor, n_second: int) -> Derivatives:
    scale, cubic = 0.7978845608028654, 0.044715
    t = th.tanh(scale * (z + cubic * z * z * z))
    inner = scale * (1 + 3 * cubic * z * z)  # slope of the tanh's argument
    slope = (1 - t * t) * inner  # of t
    value, first = 0.5 * z * (1 + t), 0.5 * (1 + t) + 0.5 * z * slope
    if n_second == 0:
        return Derivatives(value, first, None)
    z, t, inner, slope = z[:n_second], t[:n_second], inner[:n_second], slope[:n_second]
    bend = (1 - t * t) * (6 * scale * cubic * z) - 2 * t * slope * inner
    return Derivatives(value, first, slope + 0.5 * z * bend)


def _elu(module: nn.Module, z: th.Tensor, n_second: int) -> Derivatives:
    assert isinstance(module, nn.ELU)
    positive = z > 0
    exponential = module.alpha * th.exp(z.clamp(max=0))
    value, first = F.elu(z, module.alpha), exponential.masked_fill(positive, 1.0)
    return Derivatives(value, first, exponential[:n_second].masked_fill(positive[:n_second], 0.0) if n_second else None)


def _relu(_: nn.Module, z: th.Tensor, n_second: int) -> Derivatives:
    return Derivatives(F.relu(z), (z > 0).to(z.dtype), None)


ACTIVATIONS: dict[type[nn.Module], _Rule] = {
    nn.SiLU: _silu,
    nn.Tanh: _tanh,
    nn.Sigmoid: _sigmoid,
    nn.GELU: _gelu,
    nn.Softplus: _softplus,
    nn.Mish: _mish,
    nn.ELU: _elu,
    # Not twice differentiable (its curvature is zero), but what most agents trained with plain SB3 have
    nn.ReLU: _relu,
}


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
    network: nn.Sequential, features: th.Tensor, actions: th.Tensor, direction: th.Tensor | None, n_rest: int = 0
) -> tuple[th.Tensor, th.Tensor, th.Tensor | None]:
    """
    Output, action gradient and projected curvature of a Linear-φ-…-Linear network ``Q([features, actions])``.

    With ``z_l = W_l h_{l-1} + b_l``, ``h_l = φ(z_l)`` and ``u_l = ∂Q/∂h_l``, the gradient is the action columns of
    ``W_1ᵀ (u_1 ∘ φ'(z_1))``; with the tangents ``ṫ_1 = W_1^a v``, ``ṫ_{l+1} = W_{l+1} (φ'(z_l) ∘ ṫ_l)`` the curvature is
    ``vᵀ ∇²_aa Q v = Σ_l ⟨u_l ∘ φ''(z_l), ṫ_l²⟩``, since each activation bends the network along its own tangent only.
    A network with several outputs (quantiles) is read as their mean, which is linear in the last layer.

    :param network: a network for which ``is_mlp`` holds
    :param features: shape (rows, features_dim)
    :param actions: shape (rows, action_dim)
    :param direction: ``v``, shape (n, action_dim), of the first ``n`` rows of the field; None: no curvature
    :param n_rest: leading rows of which only ``Q`` is asked for: the field's rows come after them
    :return: ``Q`` of shape (rows, outputs), ``∇_a Q`` of shape (rows - n_rest, action_dim) and ``vᵀ ∇²_aa Q v`` of shape
        (n,) or None
    """
    modules: list[Any] = list(network)
    linears, activations = modules[::2], modules[1::2]
    n_second = 0 if direction is None else len(direction)

    hidden = th.cat([features, actions], dim=1)
    layers: list[Derivatives] = []
    for linear, activation in zip(linears[:-1], activations, strict=True):
        z = linear(hidden)
        layers.append(ACTIVATIONS[type(activation)](activation, z[n_rest:], n_second))
        hidden = th.cat([activation(z[:n_rest]), layers[-1].value]) if n_rest else layers[-1].value
    output = linears[-1](hidden)

    # From here on the network is a function of the action alone
    weights = [linear.weight for linear in linears]
    weights[0] = weights[0][:, features.shape[1] :]

    slope = weights[-1].mean(dim=0, keepdim=True)
    slopes: list[th.Tensor] = []  # u_l, from the last hidden layer to the first
    for weight, layer in zip(reversed(weights[:-1]), reversed(layers), strict=True):
        slopes.append(slope)
        slope = (slope * layer.first) @ weight
    gradient = slope.expand(len(actions) - n_rest, -1)
    if direction is None:
        return output, gradient, None

    curvature = direction.new_zeros(n_second)
    tangent = direction
    for weight, layer, slope in zip(weights[:-1], layers, reversed(slopes), strict=True):
        tangent = tangent @ weight.T
        if layer.second is not None:
            curvature = curvature + (slope[:n_second] * layer.second * tangent**2).sum(dim=1)
        tangent = layer.first[:n_second] * tangent
    return output, gradient, curvature
