from collections.abc import Callable
from typing import Any

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs, ReplayBufferSamples

from sb3_pave.algorithms.execution import Branches, Execution, Network
from sb3_pave.algorithms.mixin import Pave, continuation
from sb3_pave.fast.differentiated import Differentiated, descend
from sb3_pave.fast.targets import follow
from sb3_pave.fast.update_log import UpdateLog
from sb3_pave.method.successor import Successor


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
        return ent_coef.reshape(())

    def _update_ent_coef(self, log_prob: th.Tensor, log: UpdateLog) -> None:
        if self.ent_coef_optimizer is not None:
            loss = ent_coef_loss(self.log_ent_coef, (log_prob + self.target_entropy).detach())
            descend(self.ent_coef_optimizer, loss)
            log.add(ent_coef_loss=loss)


@th.no_grad()
def ent_coef_loss(log_ent_coef: th.Tensor, excess: th.Tensor) -> Differentiated:
    """
    ``-log α E[log π(a | s) + H]``: too small to be worth a graph.

    :param log_ent_coef: ``log α``, shape (1,)
    :param excess: ``log π(a | s) + H`` with the target entropy ``H``, shape (batch, 1)
    """
    # Networks may have more digits
    gradient = (excess * (-1 / len(excess))).sum(dim=0).to(log_ent_coef.dtype)
    return Differentiated(-(log_ent_coef * excess).mean(), (log_ent_coef,), (gradient,))


def td_target(
    actor: Network,
    critic: Network,
    value: Callable[[Any], th.Tensor],
    observations: PyTorchObs,
    noise: th.Tensor | None,
    ent_coef: th.Tensor,
    rewards: th.Tensor,
    continues: th.Tensor,
) -> th.Tensor:
    """
    ``r + γ (Q'(s', a') - α log π(a' | s'))``, shape (batch, 1) or (batch, quantiles).

    :param actor: draws ``a'``
    :param critic: ``Q'``, the target critics
    :param value: what of their output is bootstrapped from
    :param observations: ``s'``
    :param noise: that ``a'`` is drawn with
    :param ent_coef: ``α``
    :param rewards: ``r``, shape (batch, 1)
    :param continues: ``γ``, 0 after a terminal step, shape (batch, 1)
    """
    actions, log_prob = actor(observations, noise)
    return rewards + continues * (value(critic(observations, actions)) - ent_coef * log_prob.reshape(-1, 1))


def actor_loss(
    actor: Network,
    critic: Network,
    value: Callable[[Any], th.Tensor],
    observations: PyTorchObs,
    noise: th.Tensor | None,
    ent_coef: th.Tensor,
) -> tuple[th.Tensor, th.Tensor]:
    """
    ``E[α log π(a | s) - Q(s, a)]``, and ``log π(a | s)`` of shape (batch, 1).

    :param actor: draws ``a``
    :param critic: ``Q``
    :param value: what of its output the actor climbs, shape (batch, 1)
    :param observations: ``s``
    :param noise: that ``a`` is drawn with
    :param ent_coef: ``α``
    """
    actions, log_prob = actor(observations, noise)
    log_prob = log_prob.reshape(-1, 1)
    return (ent_coef * log_prob - value(critic(observations, actions))).mean(), log_prob


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
        self,
        execution: Execution,
        replay_data: ReplayBufferSamples,
        successor: Successor,
        branches: Branches,
        log: UpdateLog,
    ) -> None:
        if self.use_sde:
            # log_std may have changed since the last update
            self.actor.reset_noise()
        # Drawn before the critics learn, with the actor that the target is computed with
        observations, actor, noise = execution.policy(self.actor, replay_data.observations)
        ent_coef = self._ent_coef(log)

        target = self._td_target(execution, replay_data, ent_coef)
        descend(self.critic.optimizer, *self._critic_losses(execution, replay_data, successor, target, log))

        critic = execution.critic(self.critic)
        loss, log_prob = execution.loss(actor_loss, actor, critic, self._policy_value, observations, noise, ent_coef)
        log.add(actor_loss=loss)
        descend(self.actor.optimizer, loss)
        self._update_ent_coef(log_prob, log)

        if branches.targets:
            follow(self.critic.parameters(), self.critic_target.parameters(), self.tau)
            # Running statistics are copied
            follow(self.batch_norm_stats, self.batch_norm_stats_target, 1.0)

    @th.no_grad()
    def _td_target(self, execution: Execution, replay_data: ReplayBufferSamples, ent_coef: th.Tensor) -> th.Tensor:
        observations, actor, noise = execution.policy(self.actor, replay_data.next_observations)
        critic = execution.critic(self.critic_target)
        rewards, continues = replay_data.rewards, continuation(replay_data, self.gamma)
        return execution.value(td_target, actor, critic, self._next_value(), observations, noise, ent_coef, rewards, continues)

    def _next_value(self) -> Callable[[Any], th.Tensor]:
        """What the target bootstraps from, of the target critics' output: shape (batch, 1) or (batch, quantiles)."""
        raise NotImplementedError

    @staticmethod
    def _policy_value(current: Any) -> th.Tensor:
        """What the actor climbs, of the critic's output, shape (batch, 1)."""
        raise NotImplementedError
