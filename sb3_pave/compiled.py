"""The closed-form field through ``torch.compile``."""

import warnings
from functools import cache
from typing import Any

import torch as th

from sb3_pave.mlp_field import mlp_field


def compiled_mlp_field(device: th.device) -> Any:
    """
    ``mlp_field``, compiled if this machine can, else as it is.

    The parameters are inputs of the compiled code: it serves every network of the same shape. Another batch size
    compiles once more, for all sizes.

    :param device: the networks' device
    """
    return _compiled() if can_compile(device) else mlp_field


def can_compile(device: th.device) -> bool:
    """
    Whether ``torch.compile`` works here; the first time it does not, a warning says why.

    :param device: the networks' device
    """
    return _can_compile(device.type)


@cache
def _compiled() -> Any:
    return th.compile(mlp_field)


@cache
def _can_compile(device_type: str) -> bool:
    """Whether a small function compiles; the warning comes once."""
    try:
        th.compile(_probe)(th.zeros(8, device=device_type))
    except Exception as error:  # whatever a compiler that is missing or broken makes of it
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        compiler = "a C++ compiler (g++, clang++ or MSVC)" if device_type == "cpu" else "Triton and a C++ compiler"
        warnings.warn(
            f"compile=True needs {compiler}, and torch.compile failed here: {reason} Training goes on uncompiled, with the "
            "same results.",
            stacklevel=2,
        )
        return False
    return True


def _probe(x: th.Tensor) -> th.Tensor:
    return th.sigmoid(x) * x + 1
