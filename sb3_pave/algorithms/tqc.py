from typing import Any

import torch as th
from sb3_contrib import TQC
from sb3_contrib.common.utils import quantile_huber_loss
from stable_baselines3.common.type_aliases import PyTorchObs, ReplayBufferSamples

from sb3_pave.algorithms.max_entropy import MaxEntropyPave
from sb3_pave.mixin import discounts


class PAVE_TQC(MaxEntropyPave, TQC):
    """
    TQC whose critics are trained with PAVE. Takes all arguments of ``sb3_contrib.TQC``, and those of ``Pave``.

    The field is that of each critic's mean quantile: the actor climbs the mean over all of them. The quantiles
    themselves are regressed as in TQC.
    """

    # The host sets it
    top_quantiles_to_drop_per_net: int

    @th.no_grad()
    def _td_target(self, replay_data: ReplayBufferSamples, ent_coef: th.Tensor) -> th.Tensor:
        next_actions, next_log_prob = self.actor.action_log_prob(replay_data.next_observations)
        next_quantiles = self.critic_target(replay_data.next_observations, next_actions)
        n_kept = self.critic.quantiles_total - self.top_quantiles_to_drop_per_net * self.critic.n_critics
        next_quantiles = next_quantiles.flatten(start_dim=1).sort(dim=1).values[:, :n_kept]
        next_values = next_quantiles - ent_coef * next_log_prob.reshape(-1, 1)
        target = replay_data.rewards + (1 - replay_data.dones) * discounts(replay_data, self.gamma) * next_values
        return target.unsqueeze(dim=1)  # the same for each critic

    @staticmethod
    def _critic_output(values: th.Tensor) -> th.Tensor:
        return values.transpose(0, 1)

    @staticmethod
    def _td_loss(current: Any, target: th.Tensor) -> th.Tensor:
        return quantile_huber_loss(current, target, sum_over_quantiles=False)

    def _policy_value(self, observations: PyTorchObs, actions_pi: th.Tensor) -> th.Tensor:
        return self.critic(observations, actions_pi).mean(dim=2).mean(dim=1, keepdim=True)
