from collections.abc import Callable
from functools import partial

import torch as th
from sb3_contrib import TQC
from sb3_contrib.common.utils import quantile_huber_loss

from sb3_pave.algorithms.max_entropy import MaxEntropyPave


class PAVE_TQC(MaxEntropyPave, TQC):
    """
    TQC whose critics are trained with PAVE. Takes all arguments of ``sb3_contrib.TQC``, and those of ``Pave``.

    The field is that of each critic's mean quantile: the actor climbs the mean over all of them. The quantiles
    themselves are regressed as in TQC, by Huber's loss, which is no square for errors beyond 1, and a mean over the critics
    where the terms are sums: with ``scale_free=True`` the terms count as much less as that loss is below the squares of two
    critics, and mean the same whatever the scale of the rewards and the number of critics.
    """

    # The host sets it
    top_quantiles_to_drop_per_net: int

    @staticmethod
    def _critic_output(values: th.Tensor) -> th.Tensor:
        return values.transpose(0, 1)

    @staticmethod
    def _td_loss(current: th.Tensor, target: th.Tensor) -> th.Tensor:
        # The same target for each critic
        return quantile_huber_loss(current, target.unsqueeze(dim=1), sum_over_quantiles=False)

    def _huber_share(self) -> Callable[[th.Tensor, th.Tensor, th.Tensor], th.Tensor] | None:
        return _huber_share if self.scale_free else None

    @staticmethod
    def _policy_value(current: th.Tensor) -> th.Tensor:
        return current.mean(dim=2).mean(dim=1, keepdim=True)

    def _next_value(self) -> Callable[[th.Tensor], th.Tensor]:
        n_kept = self.critic.quantiles_total - self.top_quantiles_to_drop_per_net * self.critic.n_critics
        return partial(_lowest_quantiles, n=n_kept)


@th.no_grad()
def _huber_share(current: th.Tensor, target: th.Tensor, td_loss: th.Tensor) -> th.Tensor:
    """
    TQC's TD loss divided by half the sum over its critics of ``E |τ - 1{e < 0}| e² / 2``, which squares every error ``e`` of
    the quantile of level ``τ``; a scalar. It is ``2 / n_critics`` while no error exceeds 1, and falls beyond, where Huber's
    loss is linear in the error.

    :param current: the quantiles, shape (batch, n_critics, quantiles)
    :param target: their targets, shape (batch, target quantiles)
    :param td_loss: TQC's loss of these
    """
    current = current.detach()
    n_critics, n_quantiles = current.shape[1:]
    levels = (th.arange(n_quantiles, device=current.device, dtype=current.dtype) + 0.5) / n_quantiles
    errors = target[:, None, None, :] - current[:, :, :, None]
    squares = ((levels[:, None] - (errors < 0).to(current.dtype)).abs() * errors.square()).mean() / 2
    return 2 / n_critics * th.where(squares > 0, td_loss.detach() / squares, th.ones_like(squares))


def _lowest_quantiles(quantiles: th.Tensor, n: int) -> th.Tensor:
    return quantiles.flatten(start_dim=1).sort(dim=1).values[:, :n]
