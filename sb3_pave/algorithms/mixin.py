"""What every PAVE algorithm shares: hyperparameters and their checks, random draws, the weighted sum, the log."""

import inspect
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import nn

from sb3_pave.algorithms.checks import (
    check_action_space,
    check_finite,
    check_hyperparameters,
    mpr_is_idle,
    naming_what_is_not_finite,
    refuse_parallel_training,
    warn_of_flat_fields,
)
from sb3_pave.algorithms.execution import Execution
from sb3_pave.algorithms.fast_execution import choose_execution
from sb3_pave.algorithms.signatures import HostsSignature, JoinedSignature
from sb3_pave.fast.differentiated import Loss
from sb3_pave.fast.graphs import GraphedUpdate, without_capture
from sb3_pave.fast.heap import keep_freed_memory
from sb3_pave.fast.update_log import UpdateLog
from sb3_pave.method.batches import select
from sb3_pave.method.field import refuse_compiled
from sb3_pave.method.perturbation import normalised_space, perturb
from sb3_pave.method.points import FieldInputs
from sb3_pave.method.successor import Successor, sample_with_successor
from sb3_pave.method.terms import Terms

SelfPave = TypeVar("SelfPave", bound="Pave")


class Pave(OffPolicyAlgorithm):
    """
    Policy-Aware Value-field Equalization (arXiv 2601.22970) for an SB3 actor-critic, which stands next in the bases.

    The critic minimises ``L_TD + mpr_coef · L_MPR + vfc_coef · L_VFC + curv_coef · L_Curv``; everything else is the host's.
    A class of its own (``class PAVE_TD3(Pave, TD3)``) supplies ``_gradient_step``.

    :param args: the host's positional arguments
    :param mpr_coef: ``λ1``, weight of mixed-partial regularization
    :param vfc_coef: ``λ2``, weight of vector-field consistency
    :param curv_coef: ``λ3``, weight of curvature preservation
    :param mpr_sigma: ``σ``, standard deviation of the noise that MPR adds to the observations that the critic sees
    :param curv_delta: ``δ``, curvature below which Curv vanishes, in units of Q per squared (scaled) action
    :param pave_batch_size: the three terms are means over this many transitions of each batch, drawn at random: the loss
        stays unbiased, at a lower price and a higher variance; None: over the whole batch
    :param compile: run targets and losses of MLP networks, with their gradients, through ``torch.compile`` (half a minute,
        once); on the CPU, also step Adam by PyTorch's fused implementation
    :param cuda_graph: on a CUDA device, record the update as CUDA graphs and replay them
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

    def __init__(
        self,
        *args: Any,
        mpr_coef: float = 0.1,
        vfc_coef: float = 0.1,
        curv_coef: float = 0.01,
        mpr_sigma: float = 0.01,
        curv_delta: float = 1.0,
        pave_batch_size: int | None = None,
        compile: bool = False,
        cuda_graph: bool = False,
        **kwargs: Any,
    ):
        # Before the host's constructor, which calls _setup_model
        self.mpr_coef = mpr_coef
        self.vfc_coef = vfc_coef
        self.curv_coef = curv_coef
        self.mpr_sigma = mpr_sigma
        self.curv_delta = curv_delta
        self.pave_batch_size = pave_batch_size
        self.compile = compile
        self.cuda_graph = cuda_graph
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
        self._check_hyperparameters()
        given = self.policy_kwargs
        if getattr(self, "_is_new", False):
            self.policy_kwargs = {**_default_activation(self.policy_class), **given}
        self._graphs = None
        try:
            super()._setup_model(*args, **kwargs)
        except (TypeError, KeyError) as error:  # some Pythons report a repeated keyword as a KeyError
            if self.policy_kwargs is given or "'activation_fn'" not in str(error):
                raise
            # A policy of the user's that passes on its own
            self.policy_kwargs = given
            super()._setup_model(*args, **kwargs)
        warn_of_flat_fields(self)

    @classmethod
    def load(cls: type[SelfPave], *args: Any, **kwargs: Any) -> SelfPave:
        """
        Load a PAVE or a plain agent of the host class from a zip file, see ``BaseAlgorithm.load``.

        :param args: the host's positional arguments, the first of which is the path to the file, or a file-like object
        :param kwargs: the host's keyword arguments and hyperparameters to change
        """
        host_load = super().load
        if isinstance(kwargs.get("policy_kwargs"), dict):
            given = inspect.signature(host_load).bind_partial(*args, **kwargs).arguments
            path = args[0] if args else next(iter(given.values()))
            custom_objects = given.get("custom_objects", kwargs.get("custom_objects"))
            kwargs["policy_kwargs"] = cls._as_stored(kwargs["policy_kwargs"], path, custom_objects)
        return host_load(*args, **kwargs)

    @classmethod
    def _as_stored(cls, policy_kwargs: dict[str, Any], path: Any, custom_objects: dict[str, Any] | None) -> dict[str, Any]:
        """
        The given policy arguments with what constructors add to them, so that load() compares like with like.

        :param policy_kwargs: as the user gave them, to the constructor and now to load()
        :param path: the zip file
        :param custom_objects: see ``BaseAlgorithm.load``
        """
        position = path.tell() if hasattr(path, "tell") else None
        try:
            data, _, _ = load_from_zip_file(path, device="cpu", custom_objects=custom_objects)
        except (OSError, ValueError):
            # Whatever it is, the host's load() knows it or says what is wrong with it
            return policy_kwargs
        if position is not None:
            path.seek(position)
        stored = (data or {}).get("policy_kwargs") or {}
        added = {key: stored[key] for key in cls._added_policy_kwargs if key in stored}
        if stored.get("activation_fn") is nn.SiLU:
            added["activation_fn"] = nn.SiLU
        return {**added, **policy_kwargs}

    if not TYPE_CHECKING:  # whose readers find the host's

        @HostsSignature
        def learn(self, *args: Any, **kwargs: Any) -> Any:
            """As the host's; where that is SB3's, ``tb_log_name`` is the class's name unless given."""
            host_learn = super().learn
            if host_learn.__module__.partition(".")[0] not in ("stable_baselines3", "sb3_contrib"):
                return host_learn(*args, **kwargs)
            given = inspect.signature(host_learn).bind(*args, **kwargs)
            if given.arguments.get("tb_log_name") is None:
                given.arguments["tb_log_name"] = type(self).__name__
            return host_learn(*given.args, **given.kwargs)

    def train(self, gradient_steps: int, batch_size: int | None = None) -> None:
        """
        Update critics, actor and targets on replayed batches.

        :param gradient_steps: number of updates
        :param batch_size: transitions of each; None: the host's default
        :raises ValueError: if a PAVE term became infinite or NaN
        :raises RuntimeError: if the critic has no second-order graph
        """
        self._check_hyperparameters()
        if batch_size is None:
            batch_size = inspect.signature(super().train).parameters["batch_size"].default
        refuse_compiled(self.critic)
        keep_freed_memory()
        self.policy.set_training_mode(True)
        self._update_learning_rate(self._optimizers())
        log, execution = UpdateLog(), choose_execution(self)
        with execution.training(), naming_what_is_not_finite(log, self._n_updates):
            for gradient_step in range(gradient_steps):
                self._n_updates += 1
                step = partial(self._gradient_step, gradient_step=gradient_step)
                execution.run(step, partial(self._sample, batch_size), self._kind_of_update(gradient_step), log)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self._write_log(log)

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
        if self.vfc_coef > 0:
            return sample_with_successor(self.replay_buffer, draw)
        replay_data = draw()
        return replay_data, Successor(replay_data.next_observations, None)

    def _own_tensors(self) -> list[th.Tensor]:
        """What updates use and change that is not the policy's."""
        named = (getattr(self, name, None) for name in ("log_ent_coef", "ent_coef_tensor"))
        return [tensor for tensor in named if isinstance(tensor, th.Tensor)]

    def _kind_of_update(self, gradient_step: int) -> tuple[bool, bool]:
        """Which branches the host's update takes: whether it updates the actor, and the targets."""
        delayed = self._n_updates % getattr(self, "policy_delay", 1) == 0
        return delayed, gradient_step % getattr(self, "target_update_interval", 1) == 0

    def get_parameters(self, *args: Any, **kwargs: Any) -> dict[str, dict]:
        """As the host's; optimizers as they are without CUDA graphs, so that a saved agent can be loaded anywhere."""
        parameters = super().get_parameters(*args, **kwargs)
        if self._graphs is None:
            return parameters
        return {name: without_capture(state) if name.endswith("optimizer") else state for name, state in parameters.items()}

    def _excluded_save_params(self, *args: Any, **kwargs: Any) -> list[str]:
        return [*super()._excluded_save_params(*args, **kwargs), "_graphs", "_mpr_is_idle"]

    def _optimizers(self) -> list[th.optim.Optimizer]:
        optimizers = [self.actor.optimizer, self.critic.optimizer]
        ent_coef_optimizer = getattr(self, "ent_coef_optimizer", None)
        return optimizers if ent_coef_optimizer is None else [*optimizers, ent_coef_optimizer]

    def _terms(self, replay_data: ReplayBufferSamples, successor: Successor) -> Terms | None:
        """The terms at the batch, with ``ε`` and ``v`` drawn; None if all weights are zero."""
        if not self._has_terms():
            return None
        inputs, exists = self._field_inputs(replay_data, successor), successor.exists
        if exists is not None and inputs.rows is not None:
            exists = exists[inputs.rows]
        return Terms(inputs, self._coefs(), self.curv_delta, exists)

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
            noisy_observations = perturb(observations, seen, self.mpr_sigma, normalize_images)
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
        terms = self._terms(replay_data, successor)
        if terms is None:
            td_loss = self._td_loss(self.critic(replay_data.observations, replay_data.actions), target)
            log.add(critic_loss=td_loss)
            return [td_loss]
        losses, scalars = execution.td_and_terms(terms, self._td_loss, target)
        log.add(**scalars)
        return losses

    def _has_terms(self) -> bool:
        return self._coefs() != (0, 0, 0)

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

    def _write_log(self, log: UpdateLog) -> None:
        values = log.read()
        check_finite(values, self._n_updates)
        for tag, per_update in values.items():
            self.logger.record(f"train/{tag}", fmean(per_update))

    def _check_hyperparameters(self) -> None:
        check_hyperparameters(self)
        self._mpr_is_idle = mpr_is_idle(self)
        if self.cuda_graph and type(self).train is not Pave.train:
            raise ValueError(f"cuda_graph=True records PAVE's own update, but {type(self).__name__} has a train() of its own.")

    def _init_callback(self, *args: Any, **kwargs: Any) -> Any:
        refuse_parallel_training([*args, *kwargs.values()])
        return super()._init_callback(*args, **kwargs)


# What the constructor keeps for itself
OWN_ARGUMENTS = {
    name for name, argument in inspect.signature(Pave.__init__).parameters.items() if argument.kind is argument.KEYWORD_ONLY
}


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
