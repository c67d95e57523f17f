"""What every PAVE algorithm shares: its arguments and their checks, ``train()``, the log."""

import inspect
from functools import partial
from statistics import fmean
from typing import Any, Literal

import torch as th
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import nn

from sb3_pave.algorithms.acting import ActsSooner
from sb3_pave.algorithms.checks import (
    check_action_space,
    check_hyperparameters,
    noise_is_idle,
    refuse_parallel_training,
    warn_of_flat_fields,
    warn_of_papers_delta,
    warn_of_part_of_batch,
    warn_of_single_transitions,
)
from sb3_pave.algorithms.critic_terms import CriticTerms
from sb3_pave.algorithms.diagnostics import Diagnostics
from sb3_pave.algorithms.execution import Branches, Execution
from sb3_pave.algorithms.fast_execution import choose_acting, choose_execution
from sb3_pave.algorithms.finite import check_finite, naming_what_is_not_finite
from sb3_pave.algorithms.loading import is_loading
from sb3_pave.algorithms.plain_values import plain_flag
from sb3_pave.algorithms.run_names import NamedAfterClass
from sb3_pave.algorithms.saving import ARGUMENTS, SavedAsHost
from sb3_pave.algorithms.signatures import JoinedSignature
from sb3_pave.algorithms.standing import Standing
from sb3_pave.algorithms.units import default_weights, settle_weights
from sb3_pave.fast.graphs import GraphedUpdate
from sb3_pave.fast.heap import keep_freed_memory
from sb3_pave.fast.update_log import UpdateLog
from sb3_pave.method.field import refuse_compiled
from sb3_pave.method.scales import Scales
from sb3_pave.method.successor import Successor

# Compared by ``is``, which tells whether the host's constructor has put a number of its own in its place
_NOTHING_YET = float("0")


class Pave(NamedAfterClass, ActsSooner, SavedAsHost, CriticTerms):
    """
    Policy-Aware Value-field Equalization (arXiv 2601.22970) for an SB3 actor-critic, which stands next in the bases.

    The critic minimises ``L_TD + mpr_coef · L_MPR + vfc_coef · L_VFC + curv_coef · L_Curv``; everything else is the host's.
    A class of its own (``class PAVE_TD3(Pave, TD3)``) supplies ``_gradient_step``.

    :param args: the host's positional arguments
    :param scale_free: whether the five numbers below count in units of the replayed data, so that they mean the same on every
        task (σ in standard deviations of each observation dimension, δ and λ3 in ranges of the return, per action dimension,
        see ``Scales``); False: in the paper's units, those of the task, in which the published weights are given
    :param mpr_coef: ``λ1``, weight of mixed-partial regularization; None, here and below: see ``algorithms.units``
    :param vfc_coef: ``λ2``, weight of vector-field consistency
    :param curv_coef: ``λ3``, weight of curvature preservation
    :param mpr_sigma: ``σ``, standard deviation of the noise that MPR adds to the observations that the critic sees
    :param curv_delta: ``δ``: Curv vanishes where the curvature is below ``-δ``; in ranges of the return per action dimension,
        with ``scale_free=False`` in units of Q per squared (scaled) action
    :param pave_interval: only every so many updates have the three terms, with as many times their weights: the same loss on
        average, at a lower price; the updates between are the host's
    :param pave_batch_size: deprecated, ``pave_interval`` saves more: the three terms are means over this many transitions of
        each batch, drawn at random; None: over the whole batch
    :param compile: run targets and losses of MLP networks, with their gradients, through ``torch.compile`` (10 to 25
        seconds, once for each size of networks)
    :param cuda_graph: on a CUDA device, record the update and the policy as CUDA graphs and replay them; "auto": in the main
        thread, and where they call no Python of the user's, whose decisions a recording would repeat
    :param kwargs: the host's keyword arguments; without an ``activation_fn`` in ``policy_kwargs`` it is SiLU,
        since the critic must be twice differentiable
    :raises ValueError: if a hyperparameter has no meaning, or ``cuda_graph=True`` asks to record updates that can't
        be recorded
    :raises TypeError: if the host's constructor sets one of PAVE's names
    :raises AssertionError: if the action space is not continuous, as in SB3
    """

    __signature__ = JoinedSignature()

    # The host sets them
    actor: Any

    _graphs: GraphedUpdate | None = None
    _standing: Standing | None = None

    def __init__(
        self,
        *args: Any,
        scale_free: bool = True,
        mpr_coef: float | None = None,
        vfc_coef: float | None = None,
        curv_coef: float | None = None,
        mpr_sigma: float | None = None,
        curv_delta: float | None = None,
        pave_interval: int = 1,
        pave_batch_size: int | None = None,
        compile: bool = False,
        cuda_graph: bool | Literal["auto"] = "auto",
        **kwargs: Any,
    ):
        # Before the host's constructor, which calls _setup_model
        self.scale_free = scale_free
        self.mpr_coef = mpr_coef  # type: ignore[assignment]
        self.vfc_coef = vfc_coef  # type: ignore[assignment]
        self.curv_coef = curv_coef  # type: ignore[assignment]
        self.mpr_sigma = mpr_sigma  # type: ignore[assignment]
        self.curv_delta = curv_delta  # type: ignore[assignment]
        # What PAVE has learned of the data, for the zip
        self.return_scale = _NOTHING_YET
        self.observation_spread: Any = None
        self.pave_interval = pave_interval
        self.pave_batch_size = pave_batch_size
        self.compile = compile
        self.cuda_graph: bool | str = cuda_graph
        given = {name: getattr(self, name) for name in ARGUMENTS}
        # A loaded agent keeps its activations
        self._is_new = not is_loading()
        if kwargs.get("policy_kwargs") is not None:
            # Hosts write into it; the user's stays as it is
            kwargs["policy_kwargs"] = dict(kwargs["policy_kwargs"])
        try:
            super().__init__(*args, **kwargs)
        except AssertionError:
            # SB3's own check says which space it is, but not what to do
            if getattr(self, "action_space", None) is not None:
                check_action_space(self.action_space)
            raise
        self._refuse_overwritten_attributes(given)

    def _refuse_overwritten_attributes(self, given: dict[str, Any]) -> None:
        """
        :param given: PAVE's arguments
        :raises TypeError: if the host's constructor has put something of its own under one of PAVE's names
        """
        kinds = {"_scales": Scales, "_diagnostics": Diagnostics}
        theirs = [name for name, kind in kinds.items() if hasattr(self, name) and not isinstance(getattr(self, name), kind)]
        if self.return_scale is not _NOTHING_YET:
            theirs.append("return_scale")
        if self.observation_spread is not None:
            theirs.append("observation_spread")
        kept = {**default_weights(self.scale_free), **{name: value for name, value in given.items() if value is not None}}
        theirs += [name for name in given if getattr(self, name) is not None and getattr(self, name) != kept.get(name)]
        if theirs:
            raise TypeError(
                f"The constructor of {type(self).__name__}'s host sets {', '.join(theirs)}, which PAVE needs for itself. "
                "Rename it there."
            )

    def _setup_model(self, *args: Any, **kwargs: Any) -> None:
        # The constructor and load() pass here, and whoever puts off the networks
        check_action_space(self.action_space)
        self.scale_free = plain_flag("scale_free", self.scale_free)
        settle_weights(self)
        self._check_hyperparameters()
        given = self.policy_kwargs
        if vars(self).pop("_is_new", False):
            self.policy_kwargs = {**_default_activation(self.policy_class), **given}
        self._graphs = self._standing = None
        try:
            super()._setup_model(*args, **kwargs)
        except (TypeError, KeyError) as error:  # some Pythons report a repeated keyword as a KeyError
            if self.policy_kwargs is given or "'activation_fn'" not in str(error):
                raise
            # A policy of the user's that passes on its own
            self.policy_kwargs = given
            super()._setup_model(*args, **kwargs)
        self._diagnostics = Diagnostics()
        self._scales = Scales(self.observation_space, self.device, self.return_scale, self.observation_spread)
        warn_of_flat_fields(self)
        warn_of_papers_delta(self)
        warn_of_single_transitions(self)
        warn_of_part_of_batch(self)

    def train(self, gradient_steps: int, batch_size: int | None = None) -> None:
        """
        Update critics, actor and targets on replayed batches.

        :param gradient_steps: number of updates
        :param batch_size: transitions of each; None: the host's default
        :raises ValueError: if a PAVE term became infinite or NaN
        :raises RuntimeError: if the critic has no second-order graph
        """
        log = UpdateLog()
        with self._finishing_log_of_before():
            self._update(gradient_steps, batch_size, log)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self._defer_log(log)

    def _update(self, gradient_steps: int, batch_size: int | None, log: UpdateLog) -> None:
        """What ``train`` does, but for the log."""
        if batch_size is None:
            batch_size = inspect.signature(super().train).parameters["batch_size"].default
        if self._standing is None or not self._standing.holds():
            self._check_hyperparameters()
            if self._has_terms():
                refuse_compiled(self.critic)
            keep_freed_memory()
            self.policy.set_training_mode(True)
            execution = choose_execution(self)
            self._standing = Standing(self, execution, choose_acting(execution))
        execution = self._standing.execution
        self._update_learning_rate(self._optimizers())
        td_was_finite = self._diagnostics.td_is_finite
        with execution.training(), naming_what_is_not_finite(log, self._n_updates, self.pave_interval, td_was_finite):
            for gradient_step in range(gradient_steps):
                self._n_updates += 1
                branches = self._branches(gradient_step)
                step = partial(self._gradient_step, branches=branches)
                execution.run(step, partial(self._sample, batch_size), branches, log)

    def _gradient_step(
        self,
        execution: Execution,
        replay_data: ReplayBufferSamples,
        successor: Successor,
        branches: Branches,
        log: UpdateLog,
    ) -> None:
        """
        One update of critics, actor and targets, in the host's order.

        :param execution: evaluates and differentiates its functions
        :param replay_data: the batch
        :param successor: its one-step successors
        :param branches: what it does
        :param log: takes the losses
        """
        raise NotImplementedError

    def _own_tensors(self) -> list[th.Tensor]:
        """What updates use and change that is not the policy's."""
        named = (getattr(self, name, None) for name in ("log_ent_coef", "ent_coef_tensor"))
        own = [tensor for tensor in named if isinstance(tensor, th.Tensor)]
        return [*own, *self._scales.tensors]

    def _branches(self, gradient_step: int) -> Branches:
        """:param gradient_step: index of this update in its ``train()`` call"""
        delayed = self._n_updates % getattr(self, "policy_delay", 1) == 0
        follows = gradient_step % getattr(self, "target_update_interval", 1) == 0
        return Branches(self._terms_are_due(), delayed, follows)

    def _optimizers(self) -> list[th.optim.Optimizer]:
        optimizers = [self.actor.optimizer, self.critic.optimizer]
        ent_coef_optimizer = getattr(self, "ent_coef_optimizer", None)
        return optimizers if ent_coef_optimizer is None else [*optimizers, ent_coef_optimizer]

    def _write_log(self, log: UpdateLog, n_updates: int) -> None:
        values = log.read()
        check_finite(values, n_updates, self.pave_interval, self._diagnostics.td_is_finite)
        values.update(self._diagnostics.turns(values, len(getattr(self.critic, "q_networks", (None,)))))
        self._diagnostics.watch_agent(self, values)
        record = self.logger.record
        for tag, per_update in values.items():
            record(f"train/{tag}", fmean(per_update))

    def _check_hyperparameters(self) -> None:
        check_hyperparameters(self)
        self._mpr_is_idle = noise_is_idle(self, "MPR", "mpr_coef", self._mpr_is_idle, "VFC and Curv work")
        if self.cuda_graph is True and self._obstacle_to_recording is not None:
            raise ValueError(self._obstacle_to_recording)

    @property
    def _obstacle_to_recording(self) -> str | None:
        """Why CUDA graphs can't record the update, on whatever device; None if they can."""
        if type(self).train is Pave.train:
            return None
        return f"cuda_graph=True records PAVE's own update, but {type(self).__name__} has a train() of its own."

    def _init_callback(self, *args: Any, **kwargs: Any) -> Any:
        refuse_parallel_training([*args, *kwargs.values()])
        return super()._init_callback(*args, **kwargs)


def continuation(replay_data: ReplayBufferSamples, gamma: float) -> th.Tensor:
    """What the next value counts in the target: the discount, 0 after a terminal step, shape (batch, 1)."""
    # n-step returns have discounts of their own
    own = getattr(replay_data, "discounts", None)
    return (1 - replay_data.dones) * (gamma if own is None else own)


def _default_activation(policy_class: type) -> dict[str, Any]:
    """SiLU, where SB3 would use ReLU; a user's policy may have another default, or none to choose."""
    parameters = inspect.signature(policy_class).parameters
    if "activation_fn" in parameters:
        return {"activation_fn": nn.SiLU} if parameters["activation_fn"].default is nn.ReLU else {}
    passes_on = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    return {"activation_fn": nn.SiLU} if passes_on else {}
