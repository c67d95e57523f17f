"""Adam in one pass over the parameters, while it is asked for; equals PyTorch's default implementation."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch as th


@contextmanager
def fused_adam(optimizers: Sequence[th.optim.Optimizer]) -> Iterator[None]:
    """
    Adam's steps by PyTorch's fused implementation in this context; its state and settings stay those of the default one.

    :param optimizers: on the CPU or a CUDA device; those that are not Adam, or whose implementation was chosen, stay as they
        are
    """
    groups = [group for optimizer in optimizers if _has_choice(optimizer) for group in optimizer.param_groups]
    for group in groups:
        group["fused"] = True
    try:
        yield
    finally:
        for group in groups:
            group["fused"] = None


def _has_choice(optimizer: th.optim.Optimizer) -> bool:
    if type(optimizer) not in (th.optim.Adam, th.optim.AdamW) or not _has_fused():
        return False
    set_by_user = (group[name] for group in optimizer.param_groups for name in ("fused", "foreach"))
    excluding = (group[name] for group in optimizer.param_groups for name in ("differentiable", "capturable"))
    return all(value is None for value in set_by_user) and not any(excluding)


@cache
def _has_fused() -> bool:
    # Before PyTorch 2.4 there is none for the CPU
    try:
        th.optim.Adam([th.zeros(1, requires_grad=True)], fused=True)
    except RuntimeError:
        return False
    return True
