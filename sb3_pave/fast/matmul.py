"""Products of stacked matrices by the library that multiplies fastest on the machine at hand; equals ``@``."""

import platform
from collections.abc import Sequence
from typing import Any

import torch as th

# With a dimension below the first, or fewer multiplications a matrix than the second, oneDNN's preparations, a call for each
# matrix and a copy of the results cost more than it gains
_SMALL, _FEW = 64, 50_000_000
_THIN = 64  # columns of a result that is better computed lying down


def product(a: th.Tensor, b: th.Tensor) -> th.Tensor:
    """
    ``a @ b``, without a graph.

    :param a: shape (n, m, k)
    :param b: shape (n, k, p); as for ``a``, its matrices or their transposes are contiguous
    """
    if b.shape[2] <= _THIN and b.shape[2] < a.shape[1]:
        # The kernels run along the columns of the result
        return _product(b.mT, a.mT).mT
    return _product(a, b)


def affine(x: th.Tensor, weight: th.Tensor, bias: th.Tensor | None) -> th.Tensor:
    """
    ``x Wᵀ + b``, without a graph.

    :param x: shape (n, rows, inputs)
    :param weight: ``W``, shape (n, outputs, inputs)
    :param bias: ``b``, shape (n, 1, outputs) or None
    """
    if _is_onednns(x, weight):
        return _linears(x, weight, bias)
    return th.bmm(x, weight.mT) if bias is None else th.baddbmm(bias, x, weight.mT)


def stacked(matrices: Sequence[th.Tensor]) -> th.Tensor:
    """
    ``th.stack(matrices)``, without a copy of a single one.

    :param matrices: of the same shape
    """
    return matrices[0].unsqueeze(dim=0) if len(matrices) == 1 else th.stack(tuple(matrices))


def _product(a: th.Tensor, b: th.Tensor) -> th.Tensor:
    return _linears(a, b.mT, None) if _is_onednns(a, b) else th.bmm(a, b)


# The operator is PyTorch's internal one: where it is missing or differs, ``@`` serves
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


def _is_intels() -> bool:
    try:
        with open("/proc/cpuinfo") as info:
            return "GenuineIntel" in info.read(4096)
    except OSError:
        return "Intel" in platform.processor()


_ONEDNN_LINEAR: Any = _find_onednns_linear()
# On processors with AVX-512 that are not Intel's, MKL (behind ``@`` on x86) leaves half of their width unused; oneDNN,
# which PyTorch's own compiler uses as well, does not. On Intel's own, MKL is the faster one. Both compute in float32.
_PREFERS_ONEDNN = _ONEDNN_LINEAR is not None and not _is_intels()


def _linears(x: th.Tensor, weight: th.Tensor, bias: th.Tensor | None) -> th.Tensor:
    if th.compiler.is_compiling():
        return th.ops.sb3_pave.linears(x, weight, bias)
    return _linears_on_cpu(x, weight, bias)


def _linears_on_cpu(x: th.Tensor, weight: th.Tensor, bias: th.Tensor | None) -> th.Tensor:
    biases = [None] * len(x) if bias is None else bias.squeeze(dim=1)
    return stacked([_ONEDNN_LINEAR(*inputs, "none", [], "") for inputs in zip(x, weight, biases, strict=True)])


def _linears_shape(x: th.Tensor, weight: th.Tensor, bias: th.Tensor | None) -> th.Tensor:
    return x.new_empty(*x.shape[:2], weight.shape[1])


if _ONEDNN_LINEAR is not None:
    # PyTorch's compiler takes oneDNN's operator with constant weights only; under a name of our own it leaves it alone
    _LIBRARY = th.library.Library("sb3_pave", "DEF")
    _LIBRARY.define("linears(Tensor x, Tensor weight, Tensor? bias) -> Tensor")
    _LIBRARY.impl("linears", _linears_on_cpu, "CPU")
    th.library.register_fake("sb3_pave::linears", _linears_shape, lib=_LIBRARY)


def _is_onednns(a: th.Tensor, b: th.Tensor) -> bool:
    if not _PREFERS_ONEDNN or a.device.type != "cpu" or a.dtype != th.float32:
        return False
    # It copies a first matrix whose rows do not lie one after the other, and has a slow path for a part of a second one
    _, rows, columns = a.shape
    _, inner, outer = b.shape
    dense = a.stride()[1:] == (columns, 1) and b.stride()[1:] in ((outer, 1), (1, inner))
    return dense and min(rows, columns, outer) >= _SMALL and rows * columns * outer >= _FEW
