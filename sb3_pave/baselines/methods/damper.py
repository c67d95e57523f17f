"""DAMPER, the gradients of return and smoothness without their conflict: Ko, Goo and Hong 2026."""

from typing import Any

import torch as th
import torch.nn.functional as F

from sb3_pave.baselines.actions import deterministic_actions
from sb3_pave.baselines.methods.temporal import temporal_loss
from sb3_pave.baselines.mixin import ActorSideMethod
from sb3_pave.baselines.transitions import Transitions
from sb3_pave.fast.differentiated import parameters_of
from sb3_pave.fast.update_log import UpdateLog


def damped_gradient(return_grad: th.Tensor, temporal_grad: th.Tensor, eta: float) -> th.Tensor:
    """
    ``g = g_R + (n_R / n_T) q^{1-η} g̃`` with ``g̃ = g_T - min(g_Rᵀ g_T, 0) / ‖g_R‖² g_R`` and ``q = min(n_T / n_R, 1)``, where
    ``n_R = ‖g_R‖`` and ``n_T = ‖g_T‖``; if one of the gradients is zero, the other.

    Never less of ``g_R`` than without it, ``gᵀ g_R ≥ ‖g_R‖²``, and never more change than it, ``‖g - g_R‖ ≤ ‖g_R‖``.

    :param return_grad: ``g_R``, the gradient of the host's actor loss, shape (n,)
    :param temporal_grad: ``g_T``, that of the temporal loss, likewise
    :param eta: ``η`` in [0, 1]; 1: what is added is as long as ``g_R``, 0: no longer than ``g_T``, both
        less where the two conflict
    """
    return_norm, temporal_norm = return_grad.norm(), temporal_grad.norm()
    both = (return_norm > 0) & (temporal_norm > 0)
    # Where a norm is zero the quotients are not used, but must not be NaN either
    n_return, n_temporal = (th.where(both, norm, th.ones_like(norm)) for norm in (return_norm, temporal_norm))
    conflict = th.dot(return_grad / n_return, temporal_grad / n_temporal).clamp(max=0) * n_temporal / n_return
    scale = n_return / n_temporal * (n_temporal / n_return).clamp(max=1).pow(1 - eta)
    damped = (1 - scale * conflict) * return_grad + scale * temporal_grad
    return th.where(both, damped, th.where(return_norm > 0, return_grad, temporal_grad))


class Damper(ActorSideMethod):
    """
    An SB3 actor-critic whose actor descends the host's gradient recombined with that of ``E ‖π(s') - π(s)‖²`` (over
    transitions that are not terminal), see ``damped_gradient``. There is no weight to tune, and no value of ``eta`` that
    switches it off.

    :param args: the host's positional arguments
    :param eta: ``η`` in [0, 1], how strong the temporal gradient may become; 1: as strong as the host's, less what conflicts
    :param kwargs: the host's keyword arguments
    :raises ValueError: if ``eta`` is not in [0, 1]
    """

    method = "damper"
    hyperparameters = ("eta",)

    def __init__(self, *args: Any, eta: float = 0.5, **kwargs: Any):
        self.eta = eta
        super().__init__(*args, **kwargs)

    def _check_arguments(self) -> None:
        super()._check_arguments()
        if self.eta > 1:
            raise ValueError(f"eta must be in [0, 1], not {self.eta}.")

    def _join(self, optimizer: th.optim.Optimizer, batch: Transitions, log: UpdateLog) -> None:
        parameters = parameters_of(optimizer)
        if not parameters:
            return
        actions, next_actions = deterministic_actions(self.actor, batch.observations, batch.next_observations)
        loss = temporal_loss(actions, next_actions, batch.goes_on)
        grads = zip(parameters, th.autograd.grad(loss, parameters, allow_unused=True), strict=True)
        # What neither loss depends on stays without a gradient
        moved = [(parameter, grad) for parameter, grad in grads if grad is not None or parameter.grad is not None]
        return_grad = _flat([(parameter.grad, parameter) for parameter, _ in moved])
        temporal_grad = _flat([(grad, parameter) for parameter, grad in moved])
        damped = damped_gradient(return_grad, temporal_grad, self.eta).split([parameter.numel() for parameter, _ in moved])
        for (parameter, _), grad in zip(moved, damped, strict=True):
            # Optimizers may go through both as they lie in memory
            parameter.grad = th.empty_like(parameter).copy_(grad.view(parameter.shape))
        log.add(
            temporal_loss=loss,
            actor_grad_norm=return_grad.norm(),
            temporal_grad_norm=temporal_grad.norm(),
            grad_cosine=F.cosine_similarity(return_grad, temporal_grad, dim=0),
        )


def _flat(grads: list[tuple[th.Tensor | None, th.Tensor]]) -> th.Tensor:
    """Gradients, zeros in place of missing ones, as one vector; each with the parameter that it is of."""
    return th.cat([(th.zeros_like(parameter) if grad is None else grad).flatten() for grad, parameter in grads])
