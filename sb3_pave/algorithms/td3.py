from collections.abc import Callable
from typing import Any

import torch as th
import torch.nn.functional as F
from stable_baselines3 import TD3
from stable_baselines3.common.type_aliases import PyTorchObs, ReplayBufferSamples
from stable_baselines3.common.utils import polyak_update

from sb3_pave.algorithms.mixin import Pave, continuation
from sb3_pave.fast.differentiated import descend
from sb3_pave.fast.stand_ins import mlp_actor, mlp_critic
from sb3_pave.fast.update_log import UpdateLog
from sb3_pave.method.successor import Successor

# Actor and critic below are the host's modules or stand-ins: functions of observations and (observations, actions)
_Network = Callable[..., Any]


def td_target(
    actor: _Network,
    critic: _Network,
    observations: PyTorchObs,
    noise: th.Tensor,
    rewards: th.Tensor,
    continues: th.Tensor,
) -> th.Tensor:
    """
    ``r + γ min_i Q'_i(s', π'(s') + noise)``, shape (batch, 1).

    :param actor: ``π'``, the target actor
    :param critic: ``Q'``, the target critics
    :param observations: ``s'``
    :param noise: shape (batch, action_dim)
    :param rewards: ``r``, shape (batch, 1)
    :param continues: ``γ``, 0 after a terminal step, shape (batch, 1)
    """
    actions = (actor(observations) + noise).clamp(-1, 1)
    return rewards + continues * th.cat(critic(observations, actions), dim=1).amin(dim=1, keepdim=True)


def actor_loss(actor: _Network, critic: _Network, observations: PyTorchObs) -> tuple[th.Tensor, tuple[()]]:
    """
    ``-E Q(s, π(s))``

    :param actor: ``π``
    :param critic: ``Q``, shape (batch, 1)
    :param observations: ``s``
    """
    return -critic(observations, actor(observations)).mean(), ()


def _first(values: th.Tensor) -> th.Tensor:
    return values[0]


class PAVE_TD3(Pave, TD3):
    """
    TD3 whose critics are trained with PAVE. Takes all arguments of ``stable_baselines3.TD3``, and those of ``Pave``.
    """

    def _gradient_step(
        self, replay_data: ReplayBufferSamples, successor: Successor, gradient_step: int, log: UpdateLog
    ) -> None:
        target = self._td_target(replay_data)
        descend(self.critic.optimizer, *self._critic_losses(replay_data, successor, target, log))

        if self._n_updates % self.policy_delay == 0:
            actor: _Network = self.actor
            critic: _Network = self.critic.q1_forward
            if self._has_stand_ins:
                actor, critic = mlp_actor(self.actor), mlp_critic(self.critic, _first, n_critics=1)
            loss, _ = self._differentiated(actor_loss, actor, critic, self._features(replay_data.observations))
            log.add(actor_loss=loss)
            descend(self.actor.optimizer, loss)
            self._update_targets()

    @staticmethod
    def _td_loss(current: tuple[th.Tensor, ...], target: th.Tensor) -> th.Tensor:
        return sum(F.mse_loss(current_q, target) for current_q in current)  # type: ignore[return-value]

    @th.no_grad()
    def _td_target(self, replay_data: ReplayBufferSamples) -> th.Tensor:
        noise = th.empty_like(replay_data.actions).normal_(0, self.target_policy_noise)
        noise.clamp_(-self.target_noise_clip, self.target_noise_clip)
        actor = mlp_actor(self.actor_target) if self._has_stand_ins else self.actor_target
        critic = self._function_of(self.critic_target)
        rewards, continues = replay_data.rewards, continuation(replay_data, self.gamma)
        return self._evaluated(
            td_target, actor, critic, self._features(replay_data.next_observations), noise, rewards, continues
        )

    def _update_targets(self) -> None:
        polyak_update(self.critic.parameters(), self.critic_target.parameters(), self.tau)
        polyak_update(self.actor.parameters(), self.actor_target.parameters(), self.tau)
        # Running statistics are copied
        polyak_update(self.critic_batch_norm_stats, self.critic_batch_norm_stats_target, 1.0)
        polyak_update(self.actor_batch_norm_stats, self.actor_batch_norm_stats_target, 1.0)
