"""A critic whose gradient field is known exactly: ``Q(s, a) = -½ aᵀ H a + aᵀ B s``, so that ``∇_a Q = -H a + B s``."""

import torch as th
from torch import nn


class QuadraticCritic(nn.Module):
    """
    An ensemble of quadratic critics, called as SB3's are.

    :param hessians: ``H``, shape (n_critics, action_dim, action_dim), symmetric
    :param mixed: ``B``, shape (n_critics, action_dim, obs_dim)
    """

    def __init__(self, hessians: th.Tensor, mixed: th.Tensor):
        super().__init__()
        self.hessians = nn.Parameter(hessians)
        self.mixed = nn.Parameter(mixed)

    def forward(self, obs: th.Tensor, actions: th.Tensor) -> tuple[th.Tensor, ...]:
        quadratic = -0.5 * th.einsum("bi,cij,bj->cb", actions, self.hessians, actions)
        bilinear = th.einsum("bi,cis,bs->cb", actions, self.mixed, obs)
        return tuple((quadratic + bilinear).unsqueeze(-1))


def random_quadratic(n_critics: int = 2, action_dim: int = 3, obs_dim: int = 4) -> QuadraticCritic:
    factor = th.randn(n_critics, action_dim, action_dim, dtype=th.float64)
    hessians = factor @ factor.mT + th.eye(action_dim, dtype=th.float64)
    return QuadraticCritic(hessians, th.randn(n_critics, action_dim, obs_dim, dtype=th.float64))
