"""What every PAVE algorithm shares: hyperparameters and their checks, random draws, the weighted sum, the log."""

import inspect
from collections.abc import Callable
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar
from zipfile import BadZipFile

import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import nn

from sb3_pave.algorithms.checks import (
    check_action_space,
    check_finite,
    check_hyperparameters,
    mpr_is_idle,
    naming_what_is_not_finite,
    plain_flag,
    refuse_parallel_training,
    warn_of_flat_fields,
)
from sb3_pave.algorithms.deferred_log import DeferredLog
from sb3_pave.algorithms.diagnostics import Diagnostics
from sb3_pave.algorithms.execution import Execution
from sb3_pave.algorithms.fast_execution import choose_execution
from sb3_pave.algorithms.signatures import HostsSignature, JoinedSignature
from sb3_pave.algorithms.standing import Standing
from sb3_pave.algorithms.units import default_weights, staying, stored_numbers, weights_to_load
from sb3_pave.fast.differentiated import Loss
from sb3_pave.fast.graphs import GraphedUpdate, without_capture
from sb3_pave.fast.heap import keep_freed_memory
from sb3_pave.fast.update_log import UpdateLog
from sb3_pave.method.batches import select
from sb3_pave.method.field import refuse_compiled
from sb3_pave.method.perturbation import normalised_space, perturb
from sb3_pave.method.points import FieldInputs
from sb3_pave.method.scales import Scales
from sb3_pave.method.successor import Successor, sample_with_successor
from sb3_pave.method.terms import Terms

# By whether the weights are scale-free
_ADVICE = {
    False: "In the paper's units the weights have to fit the scale of the rewards: lower {term}_coef (for Curv curv_delta, "
    "too), or use scale_free=True, whose weights do not depend on it.",
    True: "Lower {term}_coef.",
}

SelfPave = TypeVar("SelfPave", bound="Pave")


class Pave(DeferredLog, OffPolicyAlgorithm):
    """
    Policy-Aware Value-field Equalization (arXiv 2601.22970) for an SB3 actor-critic, which stands next in the bases.

    The critic minimises ``L_TD + mpr_coef · L_MPR + vfc_coef · L_VFC + curv_coef · L_Curv``; everything else is the host's.
    A class of its own (``class PAVE_TD3(Pave, TD3)``) supplies ``_gradient_step``.

    :param args: the host's positional arguments
    :param scale_free: whether the five numbers below count in units of the replayed data, so that they mean the same on every
        task (σ in standard deviations of each observation dimension, δ and λ3 in ranges of the return, per action dimension,
        see ``Scales``); False: in the paper's units, in which the published weights are given
    :param mpr_coef: ``λ1``, weight of mixed-partial regularization; None, here and below: see ``algorithms.units``
    :param vfc_coef: ``λ2``, weight of vector-field consistency
    :param curv_coef: ``λ3``, weight of curvature preservation
    :param mpr_sigma: ``σ``, standard deviation of the noise that MPR adds to the observations that the critic sees
    :param curv_delta: ``δ``, curvature below which Curv vanishes, in units of Q per squared (scaled) action
    :param pave_interval: only every so many updates have the three terms, with as many times their weights: the same loss on
        average, at a lower price; the updates between are the host's
    :param pave_batch_size: the three terms are means over this many transitions of each batch, drawn at random: the loss
        stays unbiased, at a lower price and a higher variance; None: over the whole batch
    :param compile: run targets and losses of MLP networks, with their gradients, through ``torch.compile`` (half a minute,
        once); on the CPU, also step Adam by PyTorch's fused implementation
    :param cuda_graph: on a CUDA device, record the update as CUDA graphs and replay them; "auto": where the update calls no
        Python of the user's, whose decisions a recording would repeat
    :param kwargs: the host's keyword arguments; without an ``activation_fn`` in ``policy_kwargs`` it is SiLU,
        since the critic must be twice differentiable
    :raises ValueError: if a hyperparameter is no number, negative or not finite
    :raises AssertionError: if the action space is not continuous, as in SB3
    """

    __signature__ = JoinedSignature()

    # What the host's constructor adds to the user's policy_kwargs
    _added_policy_kwargs: ClassVar[tuple[str, ...]] = ("use_sde",)

    # The host sets them
    actor: Any
    critic: Any
    replay_buffer: Any

    _graphs: GraphedUpdate | None = None
    # MPR has a weight, but no observation to perturb
    _mpr_is_idle = False
    _standing: Standing | None = None
    _scales: Scales

    def __init__(
        self,
        *args: Any,
        scale_free: bool = False,
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
        self.mpr_coef: float = mpr_coef  # type: ignore[assignment]
        self.vfc_coef: float = vfc_coef  # type: ignore[assignment]
        self.curv_coef: float = curv_coef  # type: ignore[assignment]
        self.mpr_sigma: float = mpr_sigma  # type: ignore[assignment]
        self.curv_delta: float = curv_delta  # type: ignore[assignment]
        # What PAVE has learned of the data, for the zip
        self.return_scale = 0.0
        self.observation_spread: Any = None
        self.pave_interval = pave_interval
        self.pave_batch_size = pave_batch_size
        self.compile = compile
        self.cuda_graph: bool | str = cuda_graph
        self._is_new = True
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
        # What is left of the construction must not go into a saved model, and a loaded one keeps its activations
        del self._is_new

    def _setup_model(self, *args: Any, **kwargs: Any) -> None:
        # Both the constructor and load() pass here
        check_action_space(self.action_space)
        self.scale_free = plain_flag("scale_free", self.scale_free)
        for name, default in default_weights(self.scale_free).items():
            if getattr(self, name) is None:
                setattr(self, name, default)
        self._check_hyperparameters()
        given = self.policy_kwargs
        if getattr(self, "_is_new", False):
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

    @classmethod
    def load(cls: type[SelfPave], *args: Any, **kwargs: Any) -> SelfPave:
        """
        Load a PAVE or a plain agent of the host class from a zip file, see ``BaseAlgorithm.load``.

        :param args: the host's positional arguments, the first of which is the path to the file, or a file-like object
        :param kwargs: the host's keyword arguments and hyperparameters to change
        """
        host_load = super().load
        given = inspect.signature(host_load).bind(*args, **kwargs).arguments
        path = args[0] if args else kwargs.get("path", next(iter(given.values()), None))
        try:
            numbers = stored_numbers(path)
            if isinstance(kwargs.get("policy_kwargs"), dict):
                custom_objects = given.get("custom_objects", kwargs.get("custom_objects"))
                kwargs["policy_kwargs"] = cls._as_stored(kwargs["policy_kwargs"], path, custom_objects)
        except (OSError, TypeError, ValueError, BadZipFile):
            # Whatever it is, the host's load() knows it or says what is wrong with it
            numbers = {}
        return host_load(*args, **{**weights_to_load(numbers, kwargs), **kwargs})

    @classmethod
    def _as_stored(cls, policy_kwargs: dict[str, Any], path: Any, custom_objects: dict[str, Any] | None) -> dict[str, Any]:
        """
        The given policy arguments with what constructors add to them, so that load() compares like with like.

        :param policy_kwargs: as the user gave them, to the constructor and now to load()
        :param path: the zip file
        :param custom_objects: see ``BaseAlgorithm.load``
        """
        with staying(path):
            data, _, _ = load_from_zip_file(path, device="cpu", custom_objects=custom_objects)
        stored = (data or {}).get("policy_kwargs") or {}
        added = {key: stored[key] for key in cls._added_policy_kwargs if key in stored}
        if stored.get("activation_fn") is nn.SiLU:
            added["activation_fn"] = nn.SiLU
        return {**added, **policy_kwargs}

    def save(self, *args: Any, **kwargs: Any) -> None:
        """As the host's, with what PAVE has learned of the data as plain numbers and arrays."""
        self.return_scale = float(self._scales.return_scale)
        self.observation_spread = self._scales.spread_as_numbers() if self.scale_free else None
        super().save(*args, **kwargs)

    if not TYPE_CHECKING:  # whose readers find the host's

        @HostsSignature
        def learn(self, *args: Any, **kwargs: Any) -> Any:
            """As the host's; where that is SB3's, ``tb_log_name`` is the class's name unless given."""
            host_learn = super().learn
            if host_learn.__module__.partition(".")[0] in ("stable_baselines3", "sb3_contrib"):
                given = inspect.signature(host_learn).bind(*args, **kwargs)
                if given.arguments.get("tb_log_name") is None:
                    given.arguments["tb_log_name"] = type(self).__name__
                args, kwargs = given.args, given.kwargs
            learned = host_learn(*args, **kwargs)
            self._finish_log()
            return learned

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
            refuse_compiled(self.critic)
            keep_freed_memory()
            self.policy.set_training_mode(True)
            self._standing = Standing(self, choose_execution(self))
        self._update_learning_rate(self._optimizers())
        execution = self._standing.execution
        with execution.training(), naming_what_is_not_finite(log, self._n_updates):
            for gradient_step in range(gradient_steps):
                self._n_updates += 1
                step = partial(self._gradient_step, gradient_step=gradient_step)
                execution.run(step, partial(self._sample, batch_size), self._kind_of_update(gradient_step), log)

    def _gradient_step(
        self,
        execution: Execution,
        replay_data: ReplayBufferSamples,
        successor: Successor,
        gradient_step: int,
        log: UpdateLog,
    ) -> None:
        """
        One update of critics, actor and targets, in the host's order.

        :param execution: evaluates and differentiates its functions
        :param replay_data: the batch
        :param successor: its one-step successors
        :param gradient_step: index of this update in its ``train()`` call
        :param log: takes the losses
        """
        raise NotImplementedError

    def _sample(self, batch_size: int) -> tuple[ReplayBufferSamples, Successor]:
        draw = partial(self.replay_buffer.sample, batch_size, env=self._vec_normalize_env)
        if self.vfc_coef > 0 and self._terms_are_due():
            return sample_with_successor(self.replay_buffer, draw)
        replay_data = draw()
        return replay_data, Successor(replay_data.next_observations, None)

    def _own_tensors(self) -> list[th.Tensor]:
        """What updates use and change that is not the policy's."""
        named = (getattr(self, name, None) for name in ("log_ent_coef", "ent_coef_tensor"))
        own = [tensor for tensor in named if isinstance(tensor, th.Tensor)]
        return [*own, *self._scales.tensors]

    def _kind_of_update(self, gradient_step: int) -> tuple[bool, bool, bool]:
        """Which branches the update takes: whether it has PAVE's terms, updates the actor, and the targets."""
        delayed = self._n_updates % getattr(self, "policy_delay", 1) == 0
        return self._terms_are_due(), delayed, gradient_step % getattr(self, "target_update_interval", 1) == 0

    def get_parameters(self, *args: Any, **kwargs: Any) -> dict[str, dict]:
        """As the host's; optimizers as they are without CUDA graphs, so that a saved agent can be loaded anywhere."""
        parameters = super().get_parameters(*args, **kwargs)
        if self._graphs is None:
            return parameters
        return {name: without_capture(state) if name.endswith("optimizer") else state for name, state in parameters.items()}

    def _excluded_save_params(self, *args: Any, **kwargs: Any) -> list[str]:
        own = ["_graphs", "_standing", "_pending_log", "_scales", "_diagnostics", "_mpr_is_idle"]
        return [*super()._excluded_save_params(*args, **kwargs), *own]

    def _optimizers(self) -> list[th.optim.Optimizer]:
        optimizers = [self.actor.optimizer, self.critic.optimizer]
        ent_coef_optimizer = getattr(self, "ent_coef_optimizer", None)
        return optimizers if ent_coef_optimizer is None else [*optimizers, ent_coef_optimizer]

    def _critic_terms(
        self,
        replay_data: ReplayBufferSamples,
        successor: Successor,
        returns: th.Tensor,
        evaluate: Callable[..., th.Tensor] | None = None,
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
        coefs: tuple[Any, ...] = self._coefs()
        delta: Any = self.curv_delta
        self._scales.observe(returns, replay_data.observations if self.scale_free else None, evaluate)
        if self.scale_free:
            curv_coef, delta = self._scales.curvature(self.curv_coef, self.curv_delta, replay_data.actions.shape[1])
            coefs = (*coefs[:2], curv_coef)
        if self.pave_interval > 1:
            # For the updates between, too
            coefs = tuple(self.pave_interval * coef for coef in coefs)
        inputs, exists = self._field_inputs(replay_data, successor), successor.exists
        if exists is not None and inputs.rows is not None:
            exists = exists[inputs.rows]
        return Terms(inputs, coefs, delta, exists)

    def _field_inputs(self, replay_data: ReplayBufferSamples, successor: Successor) -> FieldInputs:
        """Where the weights ask for the field."""
        points = (replay_data.observations, replay_data.actions, successor.observations)
        order = None
        batch_size = len(replay_data.actions)
        if self.pave_batch_size is not None and self.pave_batch_size < batch_size:
            # At random, since not every buffer draws in random order: HER does not
            order = th.randperm(batch_size, device=self.device)
            points = select(points, order[batch_size - self.pave_batch_size :])
        observations, actions, next_observations = points
        noisy_observations = direction = None
        if self.mpr_coef > 0 and not self._mpr_is_idle:
            normalize_images = getattr(self.critic, "normalize_images", True)
            seen = normalised_space(self.observation_space, self._vec_normalize_env)
            scales = self._scales if self.scale_free else None
            noisy_observations = perturb(observations, seen, self.mpr_sigma, normalize_images, scales)
        if self.curv_coef > 0:
            direction = th.empty_like(actions).bernoulli_(0.5).mul_(2).sub_(1)
        whole = (replay_data.observations, replay_data.actions)
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
            log.add(critic_loss=td_loss)
            if self._has_terms():
                log.add(td_loss=td_loss)
            return [td_loss]
        losses, scalars = execution.td_and_terms(terms, self._td_loss, target)
        log.add(**scalars, return_scale=self._scales.return_scale.clone())
        return losses

    def _has_terms(self) -> bool:
        return self._coefs() != (0, 0, 0)

    def _terms_are_due(self) -> bool:
        """Whether this update is one of those with the terms."""
        return self._has_terms() and self._n_updates % self.pave_interval == 0

    def _coefs(self) -> tuple[float, float, float]:
        return 0.0 if self._mpr_is_idle else self.mpr_coef, self.vfc_coef, self.curv_coef

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

    def _write_log(self, log: UpdateLog, n_updates: int) -> None:
        values = log.read()
        check_finite(values, n_updates)
        values.update(self._diagnostics.turns(values, len(getattr(self.critic, "q_networks", (None,)))))
        self._watch(values)
        record = self.logger.record
        for tag, per_update in values.items():
            record(f"train/{tag}", fmean(per_update))

    def _watch(self, values: dict[str, list[float]]) -> None:
        """Warn where the terms forbid the task."""
        coefs = zip(("mpr_loss", "vfc_loss", "curv_loss"), self._coefs(), strict=True)
        weights = {name: [coef] * len(values.get(name, ())) for name, coef in coefs}
        scales, action_dim = values.get("return_scale", []), get_action_dim(self.action_space)
        if self.scale_free:
            weights["curv_loss"] = [self.curv_coef / action_dim * scale for scale in scales]
        elif self.curv_coef > 0:
            asked_for = [self.curv_delta / action_dim / scale if scale > 0 else 0.0 for scale in scales]
            self._diagnostics.watch_curvature(asked_for, _ADVICE[False])
        self._diagnostics.watch(values, weights, _ADVICE[bool(self.scale_free)])

    def _check_hyperparameters(self) -> None:
        check_hyperparameters(self)
        self._mpr_is_idle = mpr_is_idle(self)
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
