from typing import Any

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs, ReplayBufferSamples
from stable_baselines3.common.utils import polyak_update

from sb3_pave.mixin import Pave, descend
from sb3_pave.successor import Successor
from sb3_pave.update_log import UpdateLog


class EntropyBonus(Pave):
    """The entropy coefficient, fixed or learned, of actors with an entropy bonus."""

    # The host sets them
    ent_coef_tensor: th.Tensor
    ent_coef_optimizer: th.optim.Adam | None
    log_ent_coef: Any
    target_entropy: Any

    def _ent_coef(self, log: UpdateLog) -> th.Tensor:
        """The coefficient of this update; a step towards the target entropy takes effect in the next one."""
        learned = self.ent_coef_optimizer is not None
        ent_coef = th.exp(self.log_ent_coef.detach()) if learned else self.ent_coef_tensor
        log.add(ent_coef=ent_coef)
        return ent_coef

    def _update_ent_coef(self, log_prob: th.Tensor, log: UpdateLog) -> None:
        if self.ent_coef_optimizer is not None:
            ent_coef_loss = -(self.log_ent_coef * (log_prob + self.target_entropy).detach()).mean()
            descend(self.ent_coef_optimizer, ent_coef_loss)
            log.add(ent_coef_loss=ent_coef_loss)


class MaxEntropyPave(EntropyBonus):
    """
    The update of actors with an entropy bonus and target critics; SAC and TQC fill in what they bootstrap from.
    """

    # The host sets them
    critic_target: Any
    target_update_interval: int
    batch_norm_stats: list[th.Tensor]
    batch_norm_stats_target: list[th.Tensor]

    def _gradient_step(
        self, replay_data: ReplayBufferSamples, successor: Successor, gradient_step: int, log: UpdateLog
    ) -> None:
        observations = replay_data.observations
        if self.use_sde:
            # log_std may have changed since the last update
            self.actor.reset_noise()
        actions_pi, log_prob = self.actor.action_log_prob(observations)
        log_prob = log_prob.reshape(-1, 1)
        ent_coef = self._ent_coef(log)
        self._update_ent_coef(log_prob, log)

        target = self._td_target(replay_data, ent_coef)
        descend(self.critic.optimizer, self._critic_loss(replay_data, successor, target, log))

        actor_loss = (ent_coef * log_prob - self._policy_value(observations, actions_pi)).mean()
        log.add(actor_loss=actor_loss)
        descend(self.actor.optimizer, actor_loss)

        if gradient_step % self.target_update_interval == 0:
            polyak_update(self.critic.parameters(), self.critic_target.parameters(), self.tau)
            # Running statistics are copied
            polyak_update(self.batch_norm_stats, self.batch_norm_stats_target, 1.0)

    def _td_target(self, replay_data: ReplayBufferSamples, ent_coef: th.Tensor) -> th.Tensor:
        """The bootstrapped target, without gradient."""
        raise NotImplementedError

    def _policy_value(self, observations: PyTorchObs, actions_pi: th.Tensor) -> th.Tensor:
        """What the actor climbs, shape (batch, 1)."""
        raise NotImplementedError
