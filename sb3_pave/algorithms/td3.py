import torch as th
import torch.nn.functional as F
from stable_baselines3 import TD3
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.utils import polyak_update

from sb3_pave.mixin import Pave, descend, discounts
from sb3_pave.successor import Successor
from sb3_pave.update_log import UpdateLog


class PAVE_TD3(Pave, TD3):
    """
    TD3 whose critics are trained with PAVE. Takes all arguments of ``stable_baselines3.TD3``, and those of ``Pave``.
    """

    def _gradient_step(
        self, replay_data: ReplayBufferSamples, successor: Successor, gradient_step: int, log: UpdateLog
    ) -> None:
        target_q_values = self._target_q_values(replay_data)
        descend(self.critic.optimizer, self._critic_loss(replay_data, successor, target_q_values, log))

        if self._n_updates % self.policy_delay == 0:
            observations = replay_data.observations
            actor_loss = -self.critic.q1_forward(observations, self.actor(observations)).mean()
            log.add(actor_loss=actor_loss)
            descend(self.actor.optimizer, actor_loss)
            self._update_targets()

    @staticmethod
    def _td_loss(current: tuple[th.Tensor, ...], target: th.Tensor) -> th.Tensor:
        return sum(F.mse_loss(current_q, target) for current_q in current)  # type: ignore[return-value]

    @th.no_grad()
    def _target_q_values(self, replay_data: ReplayBufferSamples) -> th.Tensor:
        """The smallest target critic at the target policy's action, smoothed by clipped noise."""
        noise = th.empty_like(replay_data.actions).normal_(0, self.target_policy_noise)
        noise.clamp_(-self.target_noise_clip, self.target_noise_clip)
        next_actions = (self.actor_target(replay_data.next_observations) + noise).clamp(-1, 1)
        next_q_values = th.cat(self.critic_target(replay_data.next_observations, next_actions), dim=1).amin(
            dim=1, keepdim=True
        )
        next_values = next_q_values.amin(dim=1, keepdim=True)
        return replay_data.rewards + (1 - replay_data.dones) * discounts(replay_data, self.gamma) * next_values

    def _update_targets(self) -> None:
        polyak_update(self.critic.parameters(), self.critic_target.parameters(), self.tau)
        polyak_update(self.actor.parameters(), self.actor_target.parameters(), self.tau)
        # Running statistics are copied
        polyak_update(self.critic_batch_norm_stats, self.critic_batch_norm_stats_target, 1.0)
        polyak_update(self.actor_batch_norm_stats, self.actor_batch_norm_stats_target, 1.0)
