from collections.abc import Callable

import torch as th
import torch.nn.functional as F
from stable_baselines3 import SAC

from sb3_pave.algorithms.max_entropy import MaxEntropyPave

_Values = tuple[th.Tensor, ...]  # of each critic, shape (batch, 1)


class PAVE_SAC(MaxEntropyPave, SAC):
    """
    SAC whose critics are trained with PAVE. Takes all arguments of ``stable_baselines3.SAC``, and those of ``Pave``.
    """

    @staticmethod
    def _td_loss(current: _Values, target: th.Tensor) -> th.Tensor:
        return 0.5 * sum(F.mse_loss(current_q, target) for current_q in current)  # type: ignore[return-value]

    @staticmethod
    def _policy_value(current: _Values) -> th.Tensor:
        return th.cat(current, dim=1).min(dim=1, keepdim=True)[0]

    def _next_value(self) -> Callable[[_Values], th.Tensor]:
        return self._policy_value
