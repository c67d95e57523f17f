"""Matrix products of the closed form, by the library that multiplies fastest on the machine at hand."""

from typing import Any

import torch as th


# On processors with AVX-512 that are not Intel's, MKL (behind ``@`` on x86) leaves half of their width unused; oneDNN,
# which PyTorch's own compiler uses as well, does not. Both compute in float32.
# The operator is PyTorch's internal one: where it is missing or differs, ``@`` serves.
def _find_onednns_linear() -> Any:
    avx512 = th.backends.cpu.get_cpu_capability().startswith("AVX512") and th.backends.mkldnn.is_available()
    operator = getattr(getattr(th.ops, "mkldnn", None), "_linear_pointwise", None)
    # Before PyTorch 2.4 there is no register_fake, through which the compiler learns the operator's shape
    if not avx512 or operator is None or not hasattr(th.library, "register_fake"):
        return None
    try:
        operator(th.ones(2, 2), th.ones(2, 2), None, "none", [], "")
    except (RuntimeError, TypeError):
        return None
    return operator


_ONEDNN_LINEAR: Any = _find_onednns_linear()

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


def _linear_on_cpu(x: th.Tensor, weight: th.Tensor, bias: th.Tensor | None) -> th.Tensor:
    return _ONEDNN_LINEAR(x, weight, bias, "none", [], "")


def _linear_shape(x: th.Tensor, weight: th.Tensor, bias: th.Tensor | None) -> th.Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


if _ONEDNN_LINEAR is not None:
    # PyTorch's compiler takes oneDNN's operator with constant weights only; under a name of our own it leaves it alone
    _LIBRARY = th.library.Library("sb3_pave", "DEF")
    _LIBRARY.define("linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor")
    _LIBRARY.impl("linear", _linear_on_cpu, "CPU")
    th.library.register_fake("sb3_pave::linear", _linear_shape, lib=_LIBRARY)


def _is_onednns(a: th.Tensor, b: th.Tensor) -> bool:
    if _ONEDNN_LINEAR is None or a.device.type != "cpu" or a.dtype != th.float32:
        return False
    return min(*a.shape, *b.shape) >= _SMALL and _is_dense(a) and _is_dense(b)


def _is_dense(matrix: th.Tensor) -> bool:
    # It has a slow path for views of a part of a matrix
    return matrix.is_contiguous() or matrix.T.is_contiguous()
