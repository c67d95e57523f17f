"""Functions through ``torch.compile``, where this machine can; a compiled function equals the function."""

import inspect
import warnings
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, TypeVar, cast

import torch as th

from sb3_pave.user_warning import warn_user

Function = TypeVar("Function", bound=Callable[..., Any])

# Compilations of one function: for sizes, activations, terms that are off, algorithms. PyTorch's own limit is 8
_MAX_COMPILATIONS = 64
_UNCOMPILED = "Training goes on with this part uncompiled, with the same results."


@cache
def compiled(function: Function) -> Function:
    """
    The function, compiled when it is first called; once more for other sizes, then for all of them. What PyTorch's compiler
    can't read or build, older ones above all, runs as it is after a warning.

    :param function: of tensors, without side effects; the parameters of networks are among them, so that it serves every
        agent
    """
    limit = {"recompile_limit": _MAX_COMPILATIONS}
    known = inspect.signature(th.compile).parameters  # not in older versions of PyTorch
    limit = {name: value for name, value in limit.items() if name in known}
    fast, can_be_read = th.compile(function, backend=_or_as_it_is, **limit), True  # type: ignore[call-overload]

    @wraps(function)
    def call(*arguments: Any) -> Any:
        nonlocal can_be_read
        if can_be_read:
            try:
                return fast(*arguments)
            except th._dynamo.exc.TorchDynamoException as error:
                can_be_read = False
                warn_user(f"torch.compile failed: {in_a_line(error)} {_UNCOMPILED}")
        return function(*arguments)

    return cast(Function, call)


def _or_as_it_is(graph: Any, example_inputs: Any) -> Any:
    """
    What PyTorch's compiler makes of a graph, or the graph itself where that fails: a process that was killed while it compiled
    leaves a damaged file in PyTorch's cache, disks are full, and compilers have bugs.

    :param graph: what ``torch.compile`` made of the function
    :param example_inputs: of the function
    """
    try:
        return _without_warnings(graph, example_inputs)
    except Exception as error:  # whatever a compiler, a linker or a file system makes of it
        if isinstance(error, th._dynamo.exc.RestartAnalysis):
            raise  # no failure: the function is to be traced again, with a number as a constant
        warn_user(
            f"torch.compile failed: {in_a_line(error)} {_UNCOMPILED} If a file in PyTorch's cache is damaged, "
            "remove the cache: the folder torchinductor_USER in that of temporary files, or TORCHINDUCTOR_CACHE_DIR."
        )
        return graph.forward


def _without_warnings(graph: Any, example_inputs: Any) -> Any:
    """
    PyTorch's compiler, without what it says to those who wrote the function: which of PyTorch's own parts are deprecated, and
    that products could be less exact. Under ``-W error`` each would end the training.

    :param graph: what ``torch.compile`` made of the function
    :param example_inputs: of the function
    """
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        warnings.filterwarnings("ignore", "TensorFloat32 tensor cores")
        return th._dynamo.lookup_backend("inductor")(graph, example_inputs)


def can_compile(device: th.device) -> bool:
    """
    Whether ``torch.compile`` works here; the first time it does not, a warning says why.

    :param device: the networks' device
    """
    return _can_compile(device.type)


@cache
def _can_compile(device_type: str) -> bool:
    """Whether a small function compiles; the warning comes once."""
    try:
        th.compile(_probe, backend=_without_warnings)(th.zeros(8, device=device_type))
    except Exception as error:  # whatever a compiler that is missing or broken makes of it
        compiler = "a C++ compiler (g++, clang++ or MSVC)" if device_type == "cpu" else "Triton and a C++ compiler"
        warn_user(
            f"compile=True needs {compiler} that works, and torch.compile failed here: {in_a_line(error)} Training goes on "
            "uncompiled, with the same results."
        )
        return False
    return True


def in_a_line(error: Exception) -> str:
    """
    What went wrong, in short.

    :param error: that was raised; PyTorch's own begin with the name of the backend that raised another one
    """
    cause = getattr(error, "inner_exception", error)
    lines = (str(cause).strip() or type(cause).__name__).splitlines()
    # A compiler's own output has many
    return " ".join([lines[0], *[line.strip() for line in lines[1:] if "error:" in line][:1]])


def _probe(x: th.Tensor) -> th.Tensor:
    return th.sigmoid(x) * x + 1
