"""Activation functions and their first three derivatives, which equal autograd's."""

from collections.abc import Callable
from typing import NamedTuple

import torch as th
import torch.nn.functional as F
from torch import nn


class Derivatives(NamedTuple):
    """
    An activation and its derivatives at the pre-activations ``z``.

    :param value: ``φ(z)``, of the shape of ``z``
    :param first: ``φ'(z)``, of the shape of ``z``
    :param second: ``φ''`` of the rows of ``z`` that it was asked for, or None where it is zero everywhere
    :param third: ``φ'''`` of the rows of ``z`` that it was asked for, or None where it is zero everywhere
    """

    value: th.Tensor
    first: th.Tensor
    second: th.Tensor | None
    third: th.Tensor | None


Rows = tuple[slice, slice]  # of the networks, of their rows

# Each entry takes (activation module, z, rows of the second derivative, rows of the third: the first of the former)
_Rule = Callable[[nn.Module, th.Tensor, Rows, Rows], Derivatives]


def _silu(_: nn.Module, z: th.Tensor, rows2: Rows, rows3: Rows) -> Derivatives:
    # φ = z s, φ' = s + φ (1 - s), φ'' = φ' + s - 2 s φ', and with the slope s (1 - s) of s,
    # φ''' = φ'' + slope - 2 (slope φ' + s φ''): each in as few passes as there are
    s = th.sigmoid(z)
    value = z * s
    first = th.addcmul(s, value, 1 - s)
    s2, first2, s3, first3 = s[rows2], first[rows2], s[rows3], first[rows3]
    second = (first2 + s2).addcmul_(s2, first2, value=-2)
    second3 = second[:, : s3.shape[1]]
    slope = th.addcmul(s3, s3, s3, value=-1)
    third = (second3 + slope).addcmul_(slope, first3, value=-2).addcmul_(s3, second3, value=-2)
    return Derivatives(value, first, second, third)


def _tanh(_: nn.Module, z: th.Tensor, rows2: Rows, rows3: Rows) -> Derivatives:
    value = th.tanh(z)
    first = 1 - value * value
    third = first[rows3] * (6 * value[rows3] ** 2 - 2)
    return Derivatives(value, first, -2 * value[rows2] * first[rows2], third)


def _sigmoid(_: nn.Module, z: th.Tensor, rows2: Rows, rows3: Rows) -> Derivatives:
    value = th.sigmoid(z)
    first = value * (1 - value)
    third = first[rows3] * (1 - 6 * first[rows3])
    return Derivatives(value, first, first[rows2] * (1 - 2 * value[rows2]), third)


def _softplus(module: nn.Module, z: th.Tensor, rows2: Rows, rows3: Rows) -> Derivatives:
    assert isinstance(module, nn.Softplus)
    beta = module.beta
    # PyTorch's softplus is the identity above its threshold
    linear = z * beta > module.threshold
    s = th.sigmoid(beta * z)
    bend = beta * s * (1 - s)
    third = beta * bend[rows3] * (1 - 2 * s[rows3])
    return Derivatives(
        F.softplus(z, beta, module.threshold),
        s.masked_fill(linear, 1.0),
        bend[rows2].masked_fill(linear[rows2], 0.0),
        third.masked_fill(linear[rows3], 0.0),
    )


def _mish(_: nn.Module, z: th.Tensor, rows2: Rows, rows3: Rows) -> Derivatives:
    s, t = th.sigmoid(z), th.tanh(F.softplus(z))
    slope = (1 - t * t) * s  # of t
    share = 1 - s - 2 * t * s
    bend = slope * share  # second derivative of t
    bend_slope = bend * share - slope * s * ((1 - s) * (1 + 2 * t) + 2 * slope)
    return Derivatives(
        z * t,
        t + z * slope,
        2 * slope[rows2] + z[rows2] * bend[rows2],
        3 * bend[rows3] + z[rows3] * bend_slope[rows3],
    )


def _gelu(module: nn.Module, z: th.Tensor, rows2: Rows, rows3: Rows) -> Derivatives:
    assert isinstance(module, nn.GELU)
    if module.approximate == "tanh":
        return _gelu_tanh(z, rows2, rows3)
    cdf = 0.5 * (1 + th.erf(z * 0.7071067811865476))
    pdf = th.exp(-0.5 * z * z) * 0.3989422804014327
    second = pdf[rows2] * (2 - z[rows2] ** 2)
    return Derivatives(z * cdf, cdf + z * pdf, second, pdf[rows3] * z[rows3] * (z[rows3] ** 2 - 4))


def _gelu_tanh(z: th.Tensor, rows2: Rows, rows3: Rows) -> Derivatives:
    scale, cubic = 0.7978845608028654, 0.044715
    t = th.tanh(scale * (z + cubic * z * z * z))
    # Slope and bend of the tanh's argument; its third derivative is the constant 6 · scale · cubic
    inner, inner_bend = scale * (1 + 3 * cubic * z * z), 6 * scale * cubic * z
    rest = 1 - t * t
    slope = rest * inner  # of t
    bend = rest * inner_bend - 2 * t * slope * inner
    bend_slope = rest * (6 * scale * cubic) - 4 * t * slope * inner_bend - 2 * inner * (slope * slope + t * bend)
    return Derivatives(
        0.5 * z * (1 + t),
        0.5 * (1 + t) + 0.5 * z * slope,
        slope[rows2] + 0.5 * z[rows2] * bend[rows2],
        1.5 * bend[rows3] + 0.5 * z[rows3] * bend_slope[rows3],
    )


def _elu(module: nn.Module, z: th.Tensor, rows2: Rows, rows3: Rows) -> Derivatives:
    assert isinstance(module, nn.ELU)
    positive = z > 0
    exponential = module.alpha * th.exp(z.clamp(max=0))
    bend = exponential.masked_fill(positive, 0.0)  # each of its derivatives is itself
    return Derivatives(F.elu(z, module.alpha), exponential.masked_fill(positive, 1.0), bend[rows2], bend[rows3])


def _relu(_: nn.Module, z: th.Tensor, rows2: Rows, rows3: Rows) -> Derivatives:
    return Derivatives(F.relu(z), (z > 0).to(z.dtype), None, None)


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


def derivatives(activation: nn.Module, z: th.Tensor, rows2: Rows, rows3: Rows) -> Derivatives:
    """
    Value and derivatives of an activation whose type is in ``ACTIVATIONS``.

    :param activation: the module
    :param z: pre-activations, shape (networks, rows, width)
    :param rows2: rows of the second derivative
    :param rows3: rows of the third derivative, the first of ``rows2``
    """
    return ACTIVATIONS[type(activation)](activation, z, rows2, rows3)
