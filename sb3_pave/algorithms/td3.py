import torch as th
import torch.nn.functional as F
from stable_baselines3 import TD3
from stable_baselines3.common.type_aliases import PyTorchObs, ReplayBufferSamples

from sb3_pave.algorithms.execution import Branches, Execution, Network
from sb3_pave.algorithms.mixin import Pave, continuation
from sb3_pave.fast.differentiated import descend
from sb3_pave.fast.targets import follow
from sb3_pave.fast.update_log import UpdateLog
from sb3_pave.method.successor import Successor


def td_target(
    actor: Network,
    critic: Network,
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


def actor_loss(actor: Network, critic: Network, observations: PyTorchObs) -> tuple[th.Tensor, tuple[()]]:
    """
    ``-E Q(s, π(s))``

    :param actor: ``π``
    :param critic: ``Q``, shape (batch, 1)
    :param observations: ``s``
    """
    return -critic(observations, actor(observations)).mean(), ()


class PAVE_TD3(Pave, TD3):
    """
    TD3 whose critics are trained with PAVE. Takes all arguments of ``stable_baselines3.TD3``, and those of ``Pave``.
    """

    def _gradient_step(
        self,
        execution: Execution,
        replay_data: ReplayBufferSamples,
        successor: Successor,
        branches: Branches,
        log: UpdateLog,
    ) -> None:
        target = self._td_target(execution, replay_data)
        descend(self.critic.optimizer, *self._critic_losses(execution, replay_data, successor, target, log))

        if branches.actor:
            actor, critic = execution.actor(self.actor), execution.first_critic(self.critic)
            loss, _ = execution.loss(actor_loss, actor, critic, execution.features(replay_data.observations))
            log.add(actor_loss=loss)
            descend(self.actor.optimizer, loss)
            self._update_targets()

    @staticmethod
    def _td_loss(current: tuple[th.Tensor, ...], target: th.Tensor) -> th.Tensor:
        return sum(F.mse_loss(current_q, target) for current_q in current)  # type: ignore[return-value]

    @th.no_grad()
    def _td_target(self, execution: Execution, replay_data: ReplayBufferSamples) -> th.Tensor:
        noise = th.empty_like(replay_data.actions).normal_(0, self.target_policy_noise)
        noise.clamp_(-self.target_noise_clip, self.target_noise_clip)
        actor, critic = execution.actor(self.actor_target), execution.critic(self.critic_target)
        features = execution.features(replay_data.next_observations)
        return execution.value(
            td_target, actor, critic, features, noise, replay_data.rewards, continuation(replay_data, self.gamma)
        )

    def _update_targets(self) -> None:
        # One after the other: an extractor that they share is followed twice
        follow(self.critic.parameters(), self.critic_target.parameters(), self.tau)
        follow(self.actor.parameters(), self.actor_target.parameters(), self.tau)
        # Running statistics are copied
        follow(self.critic_batch_norm_stats, self.critic_batch_norm_stats_target, 1.0)
        follow(self.actor_batch_norm_stats, self.actor_batch_norm_stats_target, 1.0)
