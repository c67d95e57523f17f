"""PAVE around a ``train()`` that is the user's: the terms' gradient joins that of the host's critic loss."""

from functools import partial
from typing import Any

import torch as th

from sb3_pave.algorithms.execution import Execution
from sb3_pave.algorithms.fast_execution import choose_execution
from sb3_pave.algorithms.last_batch import LastBatch, parameter_versions, refuse_closure
from sb3_pave.algorithms.mixin import Pave
from sb3_pave.fast.differentiated import parameters_of
from sb3_pave.fast.heap import keep_freed_memory
from sb3_pave.fast.update_log import UpdateLog
from sb3_pave.method.field import refuse_compiled, values_of_output
from sb3_pave.method.points import evaluating


class PaveOwnTrain(Pave):
    """
    PAVE for a host with a ``train()`` of its own, which stands next in the bases; the host's ``train()`` runs as it is.

    Whenever it steps ``self.critic.optimizer``, the gradient of ``λ1 L_MPR + λ2 L_VFC + λ3 L_Curv`` at the batch that
    ``self.replay_buffer.sample`` returned last is added to that of the parameters it steps: the step is the one that the
    critic loss with the three terms in it would take. What the host does to gradients before the step (clipping them, say)
    does not include PAVE's. The log has the raw terms; ``train/critic_loss`` is the host's own, without them, and there is no
    ``train/td_loss``, so that no warning says when a term drowns it. The range of returns, in which scale-free Curv counts, is
    that of the critic's values rather than of the targets. Where the host's loss is no square of the errors, or a mean over
    critics (TQC's is both), scale-free weights count as beside squares of each critic all the same: lower them where rewards
    are large or critics many. Nothing is recorded as CUDA graphs.
    """

    _n_steps_of_critic = 0

    def _setup_model(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_model(*args, **kwargs)
        if not isinstance(getattr(getattr(self, "critic", None), "optimizer", None), th.optim.Optimizer):
            raise TypeError(
                f"{type(self).__name__} has no self.critic with an optimizer of its own, to whose step PAVE could add the "
                "gradient of its terms. Name them as SB3's SAC does: self.critic, a module called with observations and "
                "actions, and self.critic.optimizer."
            )

    def train(self, *args: Any, **kwargs: Any) -> None:
        """
        The host's ``train()``, with PAVE in each step of the critic's optimizer.

        :param args: the host's positional arguments
        :param kwargs: the host's keyword arguments
        :raises RuntimeError: if the host trains in a way that PAVE can't join
        :raises ValueError: if a PAVE term became infinite or NaN
        """
        self._check_hyperparameters()
        host_train = super(Pave, self).train  # not Pave's own
        if not self._has_terms():
            host_train(*args, **kwargs)
            return
        refuse_compiled(self.critic)
        keep_freed_memory()
        log, versions = UpdateLog(), parameter_versions(self.policy)
        with LastBatch(self.replay_buffer, with_successor=self.vfc_coef > 0) as last_batch:
            add_gradient = partial(self._add_gradient, choose_execution(self), last_batch, log)
            hook = self.critic.optimizer.register_step_pre_hook(add_gradient)
            try:
                host_train(*args, **kwargs)
            finally:
                hook.remove()
        idle = not last_batch.drawn and versions == parameter_versions(self.policy)
        if not last_batch.used and not idle:
            raise RuntimeError(
                f"{type(self).__name__}.train() never stepped self.critic.optimizer, which is where PAVE adds the gradient of "
                "its terms. Optimize the critic with self.critic.optimizer, or set PAVE's weights to 0."
            )
        self._write_log(log, self._n_steps_of_critic)

    def _add_gradient(
        self,
        execution: Execution,
        last_batch: LastBatch,
        log: UpdateLog,
        optimizer: th.optim.Optimizer,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """What runs before a step of the critic's optimizer; ``args`` are those of ``step``, itself among them."""
        who = f"{type(self).__name__}.train() gives the critic's optimizer"
        refuse_closure(args, kwargs, who, "Call backward() before step(), or set PAVE's weights to 0.")
        replay_data, successor = last_batch.get()
        self._n_steps_of_critic += 1
        if not self._terms_are_due():
            return
        with th.enable_grad():
            # The host's targets are not known here: the range of returns is that of the critic's own values
            with th.no_grad(), evaluating(self.critic):
                output = self.critic(replay_data.observations, replay_data.actions)
                values = values_of_output(output, len(replay_data.actions))
            terms = self._critic_terms(replay_data, successor, th.stack(values, dim=1))
            assert terms is not None
            loss, scalars = execution.terms(terms)
            log.add(**scalars, return_scale=self._scales.return_scale.clone())
            loss.backward(inputs=parameters_of(optimizer))

    def _terms_are_due(self) -> bool:
        # The host counts its updates as it likes
        return self._has_terms() and self._n_steps_of_critic % self.pave_interval == 0
