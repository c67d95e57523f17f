"""What all actor-side methods share: arguments and their checks, the hook before the actor's steps, the log."""

import inspect
import math
from contextlib import ExitStack
from functools import partial
from statistics import fmean
from typing import Any, ClassVar, TypeVar

import torch as th
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_pave.algorithms.last_batch import LastBatch, parameter_versions, refuse_closure
from sb3_pave.algorithms.loading import loading
from sb3_pave.algorithms.plain_values import plain_flag, plain_number
from sb3_pave.algorithms.run_names import NamedAfterClass
from sb3_pave.algorithms.saving import refuse_misspelled
from sb3_pave.algorithms.signatures import JoinedSignature
from sb3_pave.baselines.predecessor import DrawnSlots
from sb3_pave.baselines.transitions import Transitions, transitions
from sb3_pave.fast.detached import detach_attributes
from sb3_pave.fast.update_log import UpdateLog
from sb3_pave.user_warning import warn_user

SelfMethod = TypeVar("SelfMethod", bound="ActorSideMethod")


class ActorSideMethod(NamedAfterClass, OffPolicyAlgorithm):
    """
    A method that changes the gradient of an SB3 actor, for the actor-critic that stands next in the bases: one of SB3's or
    sb3-contrib's, a subclass of one, or a PAVE class. The host's ``train()`` runs as it is.

    Whenever that steps ``self.actor.optimizer``, the method joins the gradient at the batch that ``self.replay_buffer.sample``
    returned last. What the host does to gradients before the step (clipping them, say) does not include the method's.
    """

    __signature__ = JoinedSignature()

    # Its name, also in RL Zoo and in saved agents
    method: ClassVar[str]
    # The names of its arguments, all of them numbers that are not negative
    hyperparameters: ClassVar[tuple[str, ...]]
    # Whether it compares with the state before
    needs_predecessor: ClassVar[bool] = False

    # The host sets them
    actor: Any
    critic: Any
    replay_buffer: Any

    def __init__(self, *args: Any, **kwargs: Any):
        # In a saved agent it tells what it was trained with
        self.actor_side_method = self.method
        given = {name: getattr(self, name) for name in self.hyperparameters}
        super().__init__(*args, **kwargs)
        if theirs := [name for name, value in given.items() if getattr(self, name) != value]:
            raise TypeError(
                f"The constructor of {type(self).__name__}'s host sets {', '.join(theirs)}, which {self.method} needs for "
                "itself. Rename it there."
            )

    @classmethod
    def load(cls: type[SelfMethod], *args: Any, **kwargs: Any) -> SelfMethod:
        """
        As the host's.

        :param args: the host's positional arguments
        :param kwargs: the host's keyword arguments and hyperparameters to change
        :raises TypeError: if one of them is nearly, but not quite, one of the method's
        """
        refuse_misspelled(kwargs, inspect.signature(cls).parameters, cls.hyperparameters)
        with loading():
            return super().load(*args, **kwargs)

    def _setup_model(self, *args: Any, **kwargs: Any) -> None:
        # Both the constructor and load() pass here
        self._check_arguments()
        self._take_over()
        super()._setup_model(*args, **kwargs)
        if not isinstance(getattr(getattr(self, "actor", None), "optimizer", None), th.optim.Optimizer):
            raise TypeError(
                f"{type(self).__name__} has no self.actor with an optimizer of its own, whose steps {self.method} could join. "
                "Name them as SB3's SAC does: self.actor, and self.actor.optimizer."
            )
        if self.needs_predecessor and isinstance(self.replay_buffer, HerReplayBuffer):
            raise ValueError(
                f"{self.method.upper()} compares three states in a row, but HerReplayBuffer gives transitions with goals that "
                "the state before was not reached under. Use temporal, caps or damper with hindsight, or another buffer."
            )

    def _check_arguments(self) -> None:
        """
        Check the method's arguments, and make plain Python numbers of them.

        :raises ValueError: if one of them has no meaning
        """
        for name in self.hyperparameters:
            setattr(self, name, plain_number(name, getattr(self, name)))
        # "auto" records nothing where train() is not PAVE's own
        cuda_graph = getattr(self, "cuda_graph", False)
        if not isinstance(cuda_graph, str) and plain_flag("cuda_graph", cuda_graph, 'True, False or "auto"'):
            raise ValueError(
                f"cuda_graph=True records updates as a whole, and {self.method} joins the actor's step from outside, which a "
                "recording would not repeat. Leave cuda_graph out; compile=True works."
            )

    def _take_over(self) -> None:
        """Say so where the arguments in effect were meant for another method."""
        if self.actor_side_method != self.method:
            values = ", ".join(f"{name}={getattr(self, name)}" for name in self.hyperparameters)
            warn_user(
                f"This agent was saved by {self.actor_side_method}, whose arguments of the same name have been taken over: "
                f"{values}. Pass load() those that {self.method} shall have."
            )
            self.actor_side_method = self.method

    def train(self, *args: Any, **kwargs: Any) -> None:
        """
        The host's ``train()``, with the method in each step of the actor's optimizer.

        :param args: the host's positional arguments
        :param kwargs: the host's keyword arguments
        :raises RuntimeError: if the host trains in a way that the method can't join
        :raises ValueError: if a term became infinite or NaN
        """
        self._check_arguments()
        if not self._is_on():
            super().train(*args, **kwargs)
            return
        log, versions = UpdateLog(), parameter_versions(self.actor)
        with ExitStack() as until_trained:
            slots = until_trained.enter_context(DrawnSlots(self.replay_buffer)) if self.needs_predecessor else None
            last_batch = until_trained.enter_context(LastBatch(self.replay_buffer, with_successor=True))
            before_step = partial(self._before_actor_step, last_batch, slots, log)
            until_trained.callback(self.actor.optimizer.register_step_pre_hook(before_step).remove)
            self._join_further(until_trained)
            super().train(*args, **kwargs)
        if not last_batch.used and versions != parameter_versions(self.actor):
            raise RuntimeError(
                f"{type(self).__name__}.train() trained the actor without stepping self.actor.optimizer, which is where "
                f"{self.method} joins. Optimize the actor with self.actor.optimizer."
            )
        self._write_method_log(log)

    def _before_actor_step(
        self,
        last_batch: LastBatch,
        slots: DrawnSlots | None,
        log: UpdateLog,
        optimizer: th.optim.Optimizer,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """What runs before a step of the actor's optimizer; ``args`` are those of ``step``, itself among them."""
        who = f"{type(self).__name__}.train() gives the actor's optimizer"
        refuse_closure(args, kwargs, who, "Call backward() before step().")
        batch = transitions(*last_batch.get(), None if slots is None else slots.predecessor())
        with th.enable_grad():
            self._join(optimizer, batch, log)
        # SAC's keeps the graph of its last pass, which can't be copied
        detach_attributes(getattr(self.actor, "action_dist", None))

    def _is_on(self) -> bool:
        """Whether the method changes anything."""
        return True

    def _join(self, optimizer: th.optim.Optimizer, batch: Transitions, log: UpdateLog) -> None:
        """
        Change the gradients that the optimizer is about to step by.

        :param optimizer: of the actor; the host has set its gradients
        :param batch: the transitions
        :param log: takes losses
        """
        raise NotImplementedError

    def _join_further(self, until_trained: ExitStack) -> None:
        """
        Whatever else the method does while the host trains.

        :param until_trained: ends it
        """

    def _write_method_log(self, log: UpdateLog) -> None:
        for tag, values in log.read().items():
            broken = [value for value in values if not math.isfinite(value)]
            if broken:
                raise ValueError(
                    f"{self.method}'s {tag} became {broken[0]} before update {self._n_updates}: the actor diverges. Lower the "
                    "learning rate or the method's weights, and look for NaN or huge values in observations and rewards."
                )
            self.logger.record(f"train/{tag}", fmean(values))
