"""Adam in one pass over the parameters, while it is asked for; equals PyTorch's default implementation."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch as th

from sb3_pave.fast.pieces import in_pieces
from sb3_pave.fast.watch import hooks_of_steps


@contextmanager
def fused_adam(optimizers: Sequence[th.optim.Optimizer]) -> Iterator[None]:
    """
    Adam's steps by PyTorch's fused implementation in this context; its state and settings stay those of the default one.

    :param optimizers: on the CPU or a CUDA device; those that are not Adam, or whose implementation was chosen, stay as they
        are
    """
    chosen = [optimizer for optimizer in optimizers if _has_choice(optimizer)]
    groups = [group for optimizer in chosen for group in optimizer.param_groups]
    on_cuda = [optimizer for optimizer in chosen if _is_on_one_cuda_device(optimizer) and not hooks_of_steps(optimizer)]
    for group in groups:
        group["fused"] = True
    for optimizer in on_cuda:
        optimizer.step = partial(step_in_pieces, optimizer)  # type: ignore[assignment, method-assign]
    handles = [optimizer.register_state_dict_post_hook(_without_choice) for optimizer in chosen]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for group in groups:
            group["fused"] = None
        for optimizer in on_cuda:
            del optimizer.step


def _without_choice(optimizer: th.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Who saves the agent in the middle, a signal's handler or another thread, shall not take the choice along."""
    return {**state, "param_groups": [{**group, "fused": None} for group in state["param_groups"]]}


@th.no_grad()
def step_in_pieces(optimizer: Any) -> None:
    """
    A step by PyTorch's fused implementation, to which large tensors are given in pieces; its first step is PyTorch's own.

    :param optimizer: Adam or AdamW, its groups fused ones, its parameters of one type and on one device
    """
    moved = [[parameter for parameter in group["params"] if parameter.grad is not None] for group in optimizer.param_groups]
    if not all(optimizer.state.get(parameter) for parameters in moved for parameter in parameters):
        type(optimizer).step(optimizer)  # makes the state
        return
    for group, parameters in zip(optimizer.param_groups, moved, strict=True):
        if parameters:
            _step_group(optimizer, group, parameters)


def _step_group(optimizer: Any, group: dict[str, Any], parameters: list[Any]) -> None:
    names = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else []), "step"]
    states = [[optimizer.state[parameter][name] for parameter in parameters] for name in names]
    th._foreach_add_(states[-1], 1)
    pieces = in_pieces(parameters, [parameter.grad for parameter in parameters], *states)
    parts, gradients, averages, squares, *largest, steps = pieces
    is_decoupled = group.get("decoupled_weight_decay", isinstance(optimizer, th.optim.AdamW))
    step: Any = th._fused_adamw_ if is_decoupled else th._fused_adam_
    step(
        *(parts, gradients, averages, squares, largest[0] if largest else [], steps),
        lr=group["lr"],
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=group["amsgrad"],
        maximize=group["maximize"],
        grad_scale=None,
        found_inf=None,
    )


def _has_choice(optimizer: th.optim.Optimizer) -> bool:
    if type(optimizer) not in (th.optim.Adam, th.optim.AdamW) or not _has_fused():
        return False
    set_by_user = (group[name] for group in optimizer.param_groups for name in ("fused", "foreach"))
    excluding = (group[name] for group in optimizer.param_groups for name in ("differentiable", "capturable"))
    return all(value is None for value in set_by_user) and not any(excluding)


def _is_on_one_cuda_device(optimizer: th.optim.Optimizer) -> bool:
    kinds = {(parameter.device, parameter.dtype) for group in optimizer.param_groups for parameter in group["params"]}
    return len(kinds) == 1 and next(iter(kinds))[0].type == "cuda"


@cache
def _has_fused() -> bool:
    # Before PyTorch 2.4 there is none for the CPU
    try:
        th.optim.Adam([th.zeros(1, requires_grad=True)], fused=True)
    except RuntimeError:
        return False
    return True
