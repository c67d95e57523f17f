"""PAVE around a ``train()`` that is the user's: the terms' gradient joins that of the host's critic loss."""

from functools import partial
from typing import Any

import torch as th
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from sb3_pave.algorithms.fast_execution import choose_execution
from sb3_pave.algorithms.mixin import Pave
from sb3_pave.fast.differentiated import parameters_of
from sb3_pave.fast.heap import keep_freed_memory
from sb3_pave.fast.update_log import UpdateLog
from sb3_pave.method.field import refuse_compiled
from sb3_pave.method.successor import Successor, sample_with_successor


class PaveOwnTrain(Pave):
    """
    PAVE for a host with a ``train()`` of its own, which stands next in the bases; the host's ``train()`` runs as it is.

    Whenever it steps ``self.critic.optimizer``, the gradient of ``λ1 L_MPR + λ2 L_VFC + λ3 L_Curv`` at the batch that
    ``self.replay_buffer.sample`` returned last is added to that of the parameters it steps: the step is the one that the
    critic loss with the three terms in it would take. What the host does to gradients before the step (clipping them, say)
    does not include PAVE's. The log has the raw terms; ``train/critic_loss`` is the host's own, without them.
    """

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
        log, versions = UpdateLog(), self._parameter_versions()
        with _LastBatch(self.replay_buffer, with_successor=self.vfc_coef > 0) as last_batch:
            hook = self.critic.optimizer.register_step_pre_hook(partial(self._add_gradient, last_batch, log))
            try:
                host_train(*args, **kwargs)
            finally:
                hook.remove()
        idle = not last_batch.drawn and versions == self._parameter_versions()
        if not last_batch.used and not idle:
            raise RuntimeError(
                f"{type(self).__name__}.train() never stepped self.critic.optimizer, which is where PAVE adds the gradient of "
                "its terms. Optimize the critic with self.critic.optimizer, or set PAVE's weights to 0."
            )
        self._write_log(log)

    def _add_gradient(
        self,
        last_batch: "_LastBatch",
        log: UpdateLog,
        optimizer: th.optim.Optimizer,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """What runs before a step of the critic's optimizer; ``args`` are those of ``step``, itself among them."""
        if len(args) > 1 or kwargs.get("closure") is not None:
            raise RuntimeError(
                f"{type(self).__name__}.train() gives the critic's optimizer a closure, which computes gradients after PAVE "
                "has added its own. Call backward() before step(), or set PAVE's weights to 0."
            )
        replay_data, successor = last_batch.get()
        with th.enable_grad():
            terms = self._terms(replay_data, successor)
            assert terms is not None
            loss, scalars = choose_execution(self).terms(terms)
            log.add(**scalars)
            loss.backward(inputs=parameters_of(optimizer))

    def _parameter_versions(self) -> list[int]:
        # In-place updates count the version up
        return [parameter._version for parameter in self.policy.parameters()]


class _LastBatch:
    """
    Remembers what a replay buffer's ``sample`` returned last, while in the context.

    :param replay_buffer: the replay buffer
    :param with_successor: whether one-step successors are needed
    """

    def __init__(self, replay_buffer: Any, with_successor: bool):
        self._replay_buffer = replay_buffer
        self._sample = replay_buffer.sample
        self._with_successor = with_successor
        self._batch: tuple[ReplayBufferSamples, Successor] | None = None
        self.used = False

    @property
    def drawn(self) -> bool:
        """Whether any batch was drawn."""
        return self._batch is not None

    def get(self) -> tuple[ReplayBufferSamples, Successor]:
        """:raises RuntimeError: if there is none"""
        if self._batch is None:
            raise RuntimeError(
                "train() stepped the critic's optimizer without a batch from self.replay_buffer.sample(), so PAVE does not "
                "know the transitions. Draw them there, or set PAVE's weights to 0."
            )
        self.used = True
        return self._batch

    def __enter__(self) -> "_LastBatch":
        # On the instance: it hides the method of the class
        self._replay_buffer.sample = self._draw
        return self

    def __exit__(self, *exception: object) -> None:
        del self._replay_buffer.sample

    def _draw(self, *args: Any, **kwargs: Any) -> ReplayBufferSamples:
        draw = partial(self._sample, *args, **kwargs)
        if self._with_successor:
            self._batch = sample_with_successor(self._replay_buffer, draw)
        else:
            replay_data = draw()
            self._batch = replay_data, Successor(replay_data.next_observations, None)
        return self._batch[0]
