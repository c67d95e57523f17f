import torch as th
import torch.nn.functional as F
from sb3_contrib import CrossQ
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from sb3_pave.algorithms.execution import Branches, Execution
from sb3_pave.algorithms.max_entropy import EntropyBonus
from sb3_pave.algorithms.mixin import continuation
from sb3_pave.fast.differentiated import Loss, descend
from sb3_pave.fast.update_log import UpdateLog
from sb3_pave.method.successor import Successor
from sb3_pave.method.terms import Terms


class PAVE_CrossQ(EntropyBonus, CrossQ):
    """
    CrossQ whose critics are trained with PAVE. Takes all arguments of ``sb3_contrib.CrossQ``, and those of ``Pave``.

    Which statistics normalise the field: the running ones, as they stand after the update's joint forward pass.
    That is the function that CrossQ's actor climbs, so its gradient field is the one to steady. A batch's own
    statistics would couple its samples (``∇_a Q`` of one would depend on the others), and the perturbed and the next
    observations would each come with statistics of their own: MPR and VFC would then measure the change of those,
    beside that of the field. The running statistics move as in CrossQ itself, since evaluation does not update them.
    """

    # The host sets it
    policy_delay: int

    @property
    def _obstacle_to_recording(self) -> str | None:
        if not self.policy_kwargs.get("batch_norm", True):
            return super()._obstacle_to_recording
        return (
            "cuda_graph=True can't record CrossQ's update: batch renormalisation computes something else once its warm-up "
            "is over, and a recorded update would not. Leave cuda_graph out."
        )

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
        ent_coef = self._ent_coef(log)
        current_q_values, target = self._q_values(replay_data, ent_coef)
        td_loss: th.Tensor = 0.5 * sum(F.mse_loss(current_q, target) for current_q in current_q_values)  # type: ignore[assignment]
        # Only now: this update's statistics are what the actor's step below sees
        terms = self._critic_terms(replay_data, successor, target)
        descend(self.critic.optimizer, *self._with_terms(execution, td_loss, terms, log))

        if branches.actor:
            observations = replay_data.observations
            self.actor.set_bn_training_mode(True)
            actions_pi, log_prob = self.actor.action_log_prob(observations)
            self.actor.set_bn_training_mode(False)
            log_prob = log_prob.reshape(-1, 1)
            self._update_ent_coef(log_prob, log)
            policy_value = th.cat(self.critic(observations, actions_pi), dim=1).min(dim=1, keepdim=True)[0]
            actor_loss = (ent_coef * log_prob - policy_value).mean()
            log.add(actor_loss=actor_loss)
            descend(self.actor.optimizer, actor_loss)

    def _with_terms(self, execution: Execution, td_loss: th.Tensor, terms: Terms | None, log: UpdateLog) -> list[Loss]:
        """The TD loss and what PAVE adds to it, which is nothing without terms."""
        if terms is None:
            return self._without_terms(td_loss, log)
        loss, scalars = execution.terms(terms)
        log.add(
            critic_loss=td_loss.detach() + loss.detach(),
            td_loss=td_loss,
            **scalars,
            return_scale=self._scales.return_scale.clone(),
        )
        return [td_loss, loss]

    def _q_values(self, replay_data: ReplayBufferSamples, ent_coef: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        Current values, shape (n_critics, batch, 1), and their bootstrapped target, shape (batch, 1) and without gradient.

        One forward pass for both, in place of target networks: the replayed and the next actions are distributed
        differently, and must be normalised by statistics of their mixture.
        """
        self.actor.set_bn_training_mode(False)
        with th.no_grad():
            next_actions, next_log_prob = self.actor.action_log_prob(replay_data.next_observations)
        observations = th.cat([replay_data.observations, replay_data.next_observations])
        self.critic.set_bn_training_mode(True)
        q_values = th.cat(self.critic(observations, th.cat([replay_data.actions, next_actions])), dim=1)
        self.critic.set_bn_training_mode(False)
        current_q_values, next_q_values = q_values.split(len(next_actions))
        next_values = next_q_values.detach().amin(dim=1, keepdim=True) - ent_coef * next_log_prob.reshape(-1, 1)
        return current_q_values.T[..., None], replay_data.rewards + continuation(replay_data, self.gamma) * next_values
