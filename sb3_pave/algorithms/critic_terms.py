"""The loss of the critics: what PAVE adds to the host's TD loss at a batch."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from sb3_pave.algorithms.execution import Execution
from sb3_pave.fast.differentiated import Loss
from sb3_pave.fast.update_log import UpdateLog
from sb3_pave.method.batches import select
from sb3_pave.method.losses import PaveLosses
from sb3_pave.method.perturbation import normalised_space, perturb
from sb3_pave.method.points import FieldInputs
from sb3_pave.method.scales import Scales
from sb3_pave.method.successor import Successor, sample_with_successor
from sb3_pave.method.terms import Terms


class CriticTerms(OffPolicyAlgorithm):
    """
    ``L = L_TD + λ1 L_MPR + λ2 L_VFC + λ3 L_Curv`` of PAVE's agents: batches, what is drawn for them, weights in their units.
    """

    # The host sets them
    critic: Any
    replay_buffer: Any

    # ``Pave`` sets them
    scale_free: bool
    mpr_coef: float
    vfc_coef: float
    curv_coef: float
    mpr_sigma: float
    curv_delta: float
    pave_interval: int
    pave_batch_size: int | None
    _scales: Scales
    # MPR has a weight, but no observation to perturb
    _mpr_is_idle = False

    def _sample(self, batch_size: int) -> tuple[ReplayBufferSamples, Successor]:
        draw = partial(self.replay_buffer.sample, batch_size, env=self._vec_normalize_env)
        if self.vfc_coef > 0 and self._terms_are_due():
            return sample_with_successor(self.replay_buffer, draw)
        replay_data = draw()
        return replay_data, Successor(replay_data.next_observations, None)

    def _critic_terms(
        self,
        replay_data: ReplayBufferSamples,
        successor: Successor,
        returns: th.Tensor,
        evaluate: Callable[..., Any] | None = None,
    ) -> Terms | None:
        """
        The terms at the batch, with ``ε`` and ``v`` drawn; None where this update has none.

        :param replay_data: the batch
        :param successor: its one-step successors
        :param returns: its TD targets, whose range is the unit of scale-free PAVE; shape (batch, 1) or (batch, quantiles)
        :param evaluate: see ``Scales.observe``
        """
        if not self._terms_are_due():
            return None
        coefs: dict[str, Any] = self._coefs()
        delta: Any = self.curv_delta
        self._scales.observe(returns, replay_data.observations if self.scale_free else None, evaluate)
        if self.scale_free:
            action_dim = replay_data.actions.shape[1]
            coefs["curv"], delta = self._scales.curv_coef_and_delta(self.curv_coef, self.curv_delta, action_dim)
        if self.pave_interval > 1:
            # For the updates between, too
            coefs = {term: self.pave_interval * coef for term, coef in coefs.items()}
        inputs, exists = self._field_inputs(replay_data, successor), successor.exists
        if exists is not None and inputs.rows is not None:
            exists = exists[inputs.rows]
        return Terms(inputs, tuple(coefs.values()), delta, exists)

    def _field_inputs(self, replay_data: ReplayBufferSamples, successor: Successor) -> FieldInputs:
        """Where the weights ask for the field."""
        actions = replay_data.actions
        if actions.dtype.itemsize < 4:
            # The critic sees them beside features of float32
            actions = actions.float()
        whole = (replay_data.observations, actions)
        points = (*whole, successor.observations)
        order = None
        batch_size = len(actions)
        if self.pave_batch_size is not None and self.pave_batch_size < batch_size:
            # At random, since not every buffer draws in random order: HER does not
            order = th.randperm(batch_size, device=self.device)
            points = select(points, order[batch_size - self.pave_batch_size :])
        observations, actions, next_observations = points
        noisy_observations = direction = None
        if self.mpr_coef > 0 and not self._mpr_is_idle:
            seen = normalised_space(self.observation_space, self._vec_normalize_env)
            scales = self._scales if self.scale_free else None
            noisy_observations = perturb(observations, seen, self.mpr_sigma, scales)
        if self.curv_coef > 0:
            direction = th.empty_like(actions).bernoulli_(0.5).mul_(2).sub_(1)
        return FieldInputs(*whole, noisy_observations, next_observations if self.vfc_coef > 0 else None, direction, order)

    def _critic_losses(
        self,
        execution: Execution,
        replay_data: ReplayBufferSamples,
        successor: Successor,
        target: th.Tensor,
        log: UpdateLog,
    ) -> list[Loss]:
        """
        The parts of ``L = L_TD + λ1 L_MPR + λ2 L_VFC + λ3 L_Curv``; exactly ``L_TD`` if all weights are zero.

        :param execution: evaluates them
        :param replay_data: the batch
        :param successor: its one-step successors
        :param target: of the TD loss
        :param log: takes the losses
        """
        terms = self._critic_terms(replay_data, successor, target, execution.value)
        if terms is None:
            td_loss = execution.td(replay_data.observations, replay_data.actions, self._td_loss, target)
            return self._without_terms(td_loss, log)
        losses, scalars = execution.td_and_terms(terms, self._td_loss, target)
        log.add(**scalars, return_scale=self._scales.return_scale.clone())
        return losses

    def _without_terms(self, td_loss: Loss, log: UpdateLog) -> list[Loss]:
        """The critics' loss in an update that has no terms."""
        log.add(critic_loss=td_loss)
        if self._has_terms():
            log.add(td_loss=td_loss)
        return [td_loss]

    def _has_terms(self) -> bool:
        return any(self._coefs().values())

    def _terms_are_due(self) -> bool:
        """Whether this update is one of those with the terms."""
        return self._has_terms() and self._n_updates % self.pave_interval == 0

    def _coefs(self) -> dict[str, float]:
        """The weight of each term, 0 where it has nothing to do."""
        coefs = {term: getattr(self, f"{term}_coef") for term in PaveLosses._fields}
        return {**coefs, "mpr": 0.0} if self._mpr_is_idle else coefs

    def _huber_share(self) -> Callable[[Any, th.Tensor, th.Tensor], th.Tensor] | None:
        """
        How large the host's TD loss is, as a share of a sum of squared errors over the critics, which the terms are measured
        against: they are multiplied by it. A function, without gradient, of what ``_td_loss`` takes and of what it returns,
        a scalar; None where the TD loss is such a sum.
        """
        return None

    @staticmethod
    def _critic_output(values: th.Tensor) -> Any:
        """What the critic returns, of its networks' outputs of shape (n_critics, batch, outputs)."""
        return values.unbind()

    @staticmethod
    def _td_loss(current: Any, target: th.Tensor) -> th.Tensor:
        """
        :param current: what the critic returns for the replayed transitions
        :param target: their targets
        """
        raise NotImplementedError
