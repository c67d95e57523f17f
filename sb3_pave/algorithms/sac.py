import torch as th
import torch.nn.functional as F
from stable_baselines3 import SAC
from stable_baselines3.common.type_aliases import PyTorchObs, ReplayBufferSamples

from sb3_pave.algorithms.max_entropy import MaxEntropyPave
from sb3_pave.mixin import discounts


class PAVE_SAC(MaxEntropyPave, SAC):
    """
    SAC whose critics are trained with PAVE. Takes all arguments of ``stable_baselines3.SAC``, and those of ``Pave``.
    """

    @th.no_grad()
    def _td_target(self, replay_data: ReplayBufferSamples, ent_coef: th.Tensor) -> th.Tensor:
        next_actions, next_log_prob = self.actor.action_log_prob(replay_data.next_observations)
        next_q_values = th.cat(self.critic_target(replay_data.next_observations, next_actions), dim=1).amin(
            dim=1, keepdim=True
        )
        next_values = next_q_values.amin(dim=1, keepdim=True) - ent_coef * next_log_prob.reshape(-1, 1)
        return replay_data.rewards + (1 - replay_data.dones) * discounts(replay_data, self.gamma) * next_values

    @staticmethod
    def _td_loss(current: tuple[th.Tensor, ...], target: th.Tensor) -> th.Tensor:
        return 0.5 * sum(F.mse_loss(current_q, target) for current_q in current)  # type: ignore[return-value]

    def _policy_value(self, observations: PyTorchObs, actions_pi: th.Tensor) -> th.Tensor:
        return th.cat(self.critic(observations, actions_pi), dim=1).min(dim=1, keepdim=True)[0]
