"""Matrix products of the closed form, by the library that multiplies fastest on the machine at hand."""

from typing import Any

import torch as th

# On processors with AVX-512 that are not Intel's, MKL (behind ``@`` on x86) leaves half of their width unused; oneDNN,
# which PyTorch's own compiler uses as well, does not. Both compute in float32.
_AVX512 = th.backends.cpu.get_cpu_capability().startswith("AVX512") and th.backends.mkldnn.is_available()
_ONEDNN_LINEAR: Any = getattr(getattr(th.ops, "mkldnn", None), "_linear_pointwise", None) if _AVX512 else None

_SMALL = 16  # a dimension below which oneDNN's preparations cost more than it gains
_THIN = 64  # columns of a result that is better computed lying down


def product(a: th.Tensor, b: th.Tensor) -> th.Tensor:
    """
    ``a @ b``, without a graph.

    :param a: shape (m, k)
    :param b: shape (k, n); as for ``a``, itself or its transpose is contiguous
    """
    if b.shape[1] <= _THIN and b.shape[1] < a.shape[0]:
        # The kernels run along the columns of the result
        return _product(b.T, a.T).T
    return _product(a, b)


def affine(x: th.Tensor, weight: th.Tensor, bias: th.Tensor | None) -> th.Tensor:
    """
    ``x Wᵀ + b``, without a graph.

    :param x: shape (rows, inputs)
    :param weight: ``W``, shape (outputs, inputs)
    :param bias: ``b``, shape (outputs,) or None
    """
    if _is_onednns(x, weight):
        return _linear(x, weight, bias)
    return x @ weight.T if bias is None else th.addmm(bias, x, weight.T)


def _product(a: th.Tensor, b: th.Tensor) -> th.Tensor:
    return _linear(a, b.T, None) if _is_onednns(a, b) else a @ b


def _linear(x: th.Tensor, weight: th.Tensor, bias: th.Tensor | None) -> th.Tensor:
    if th.compiler.is_compiling():
        return th.ops.sb3_pave.linear(x, weight, bias)
    return _ONEDNN_LINEAR(x, weight, bias, "none", [], "")


# PyTorch's compiler takes oneDNN's operator with constant weights only; under a name of our own it leaves it alone
_LIBRARY = th.library.Library("sb3_pave", "DEF")
_LIBRARY.define("linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor")


@th.library.impl(_LIBRARY, "linear", "CPU")
def _linear_on_cpu(x: th.Tensor, weight: th.Tensor, bias: th.Tensor | None) -> th.Tensor:
    return _ONEDNN_LINEAR(x, weight, bias, "none", [], "")


@th.library.register_fake("sb3_pave::linear", lib=_LIBRARY)
def _linear_shape(x: th.Tensor, weight: th.Tensor, bias: th.Tensor | None) -> th.Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


def _is_onednns(a: th.Tensor, b: th.Tensor) -> bool:
    if _ONEDNN_LINEAR is None or a.device.type != "cpu" or a.dtype != th.float32:
        return False
    return min(*a.shape, *b.shape) >= _SMALL and _is_dense(a) and _is_dense(b)


def _is_dense(matrix: th.Tensor) -> bool:
    # It has a slow path for views of a part of a matrix
    return matrix.is_contiguous() or matrix.T.is_contiguous()
