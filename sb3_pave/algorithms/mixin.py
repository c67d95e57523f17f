"""What every PAVE algorithm shares: hyperparameters and their checks, random draws, the weighted sum, the log."""

import inspect
import io
import pathlib
from collections.abc import Callable
from functools import partial
from statistics import fmean
from typing import Any, ClassVar, TypeVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.type_aliases import MaybeCallback, PyTorchObs, ReplayBufferSamples
from torch import nn

from sb3_pave.algorithms.checks import (
    check_finite,
    check_hyperparameters,
    naming_what_is_not_finite,
    refuse_parallel_training,
    warn_of_flat_fields,
)
from sb3_pave.fast.compiled import can_compile, compiled
from sb3_pave.fast.critic_loss import TdError, mlp_critic_loss
from sb3_pave.fast.differentiated import Loss, compiled_loss
from sb3_pave.fast.eligibility import has_closed_form
from sb3_pave.fast.fused_adam import fused_adam
from sb3_pave.fast.graphs import CudaCapture, GraphedUpdate, fixed_numbers, without_capture
from sb3_pave.fast.heap import keep_freed_memory
from sb3_pave.fast.stacked_points import has_mode_free_features
from sb3_pave.fast.stand_ins import is_mlp_actor, is_mlp_critic, mlp_critic
from sb3_pave.fast.update_log import UpdateLog
from sb3_pave.method.batches import select
from sb3_pave.method.field import gradient_field, refuse_compiled
from sb3_pave.method.losses import pave_losses, signals, weighted_sum
from sb3_pave.method.perturbation import perturb
from sb3_pave.method.points import FieldInputs
from sb3_pave.method.successor import Successor, sample_with_successor

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
    :raises ValueError: if a hyperparameter is negative or not finite, if there is no observation that MPR could perturb,
        or if the action space is not continuous
    """

    # What the host's constructor adds to the user's policy_kwargs
    _added_policy_kwargs: ClassVar[tuple[str, ...]] = ("use_sde",)

    # The host sets them
    actor: Any
    critic: Any
    replay_buffer: Any

    _graphs: GraphedUpdate | None = None
    # Whether functions of tensors stand in for the networks in this train() call
    _has_stand_ins = False

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
        except AssertionError as error:
            action_space = getattr(self, "action_space", None)
            if action_space is None or isinstance(action_space, spaces.Box):
                raise
            raise ValueError(
                f"PAVE steadies the gradient of Q with respect to a continuous action, but the action space is {action_space}."
                " Use an environment with a Box action space, or an algorithm for discrete actions (DQN, PPO)."
            ) from error
        # What is left of the construction must not go into a saved model, and a loaded one keeps its activations
        del self._is_new

    def _setup_model(self) -> None:
        # Both the constructor and load() pass here
        self._check_hyperparameters()
        given = self.policy_kwargs
        if getattr(self, "_is_new", False):
            self.policy_kwargs = {**_default_activation(self.policy_class), **given}
        self._graphs = None
        try:
            super()._setup_model()
        except (TypeError, KeyError) as error:  # some Pythons report a repeated keyword as a KeyError
            if self.policy_kwargs is given or "'activation_fn'" not in str(error):
                raise
            # A policy of the user's that passes on its own
            self.policy_kwargs = given
            super()._setup_model()
        warn_of_flat_fields(self)

    @classmethod
    def load(cls: type[SelfPave], path: str | pathlib.Path | io.BufferedIOBase, *args: Any, **kwargs: Any) -> SelfPave:
        """
        Load a PAVE or a plain agent of the host class from a zip file, see ``BaseAlgorithm.load``.

        :param path: path to the file (or a file-like object) to load the agent from
        :param args: the host's positional arguments
        :param kwargs: the host's keyword arguments and hyperparameters to change
        """
        if kwargs.get("policy_kwargs") is not None:
            custom_objects = kwargs.get("custom_objects", args[2] if len(args) > 2 else None)
            kwargs["policy_kwargs"] = cls._as_stored(kwargs["policy_kwargs"], path, custom_objects)
        return super().load(path, *args, **kwargs)

    @classmethod
    def _as_stored(cls, policy_kwargs: dict[str, Any], path: Any, custom_objects: dict[str, Any] | None) -> dict[str, Any]:
        """
        The given policy arguments with what constructors add to them, so that load() compares like with like.

        :param policy_kwargs: as the user gave them, to the constructor and now to load()
        :param path: the zip file
        :param custom_objects: see ``BaseAlgorithm.load``
        """
        position = path.tell() if hasattr(path, "tell") else None
        data, _, _ = load_from_zip_file(path, device="cpu", custom_objects=custom_objects)
        if position is not None:
            path.seek(position)
        stored = (data or {}).get("policy_kwargs", {})
        added = {key: stored[key] for key in cls._added_policy_kwargs if key in stored}
        if stored.get("activation_fn") is nn.SiLU:
            added["activation_fn"] = nn.SiLU
        return {**added, **policy_kwargs}

    def learn(
        self: SelfPave,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfPave:
        """As the host's ``learn()``; ``tb_log_name`` is the class's name unless given."""
        return super().learn(
            total_timesteps,
            callback=callback,
            log_interval=log_interval,
            tb_log_name=tb_log_name or type(self).__name__,
            reset_num_timesteps=reset_num_timesteps,
            progress_bar=progress_bar,
        )

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """
        Update critics, actor and targets on replayed batches.

        :param gradient_steps: number of updates
        :param batch_size: transitions of each
        :raises ValueError: if a PAVE term became infinite or NaN
        :raises RuntimeError: if the critic has no second-order graph
        """
        self._check_hyperparameters()
        refuse_compiled(self.critic)
        keep_freed_memory()
        self.policy.set_training_mode(True)
        self._update_learning_rate(self._optimizers())
        log = UpdateLog()
        self._has_stand_ins = (
            self._has_terms() and all(map(is_mlp_critic, self._critics())) and all(map(is_mlp_actor, self._actors()))
        )
        graphs = self._prepare_graphs()
        fuse = self._compiles() and self.device.type == "cpu"
        with fused_adam(self._optimizers() if fuse else []), naming_what_is_not_finite(log, self._n_updates):
            for gradient_step in range(gradient_steps):
                if graphs is None:
                    replay_data, successor = self._sample(batch_size)
                    self._n_updates += 1
                    self._gradient_step(replay_data, successor, gradient_step, log)
                else:
                    with graphs.sampling_from(self.replay_buffer):
                        batch = self._sample(batch_size)
                    self._n_updates += 1
                    step = partial(self._gradient_step, gradient_step=gradient_step)
                    graphs.run(step, batch, self._kind_of_update(gradient_step), log)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self._write_log(log)

    def _gradient_step(
        self, replay_data: ReplayBufferSamples, successor: Successor, gradient_step: int, log: UpdateLog
    ) -> None:
        """
        One update of critics, actor and targets, in the host's order.

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

    def _prepare_graphs(self) -> GraphedUpdate | None:
        """What records and replays the updates of this ``train()`` call; None: nothing does."""
        if not self.cuda_graph:
            return None
        if self._graphs is None:
            self._graphs = GraphedUpdate(CudaCapture(self.device))
        tensors = [*self.policy.state_dict(keep_vars=True).values(), *self._ent_coef_tensors()]
        return self._graphs if self._graphs.prepare(self._optimizers(), tensors, fixed_numbers(self)) else None

    def _ent_coef_tensors(self) -> list[th.Tensor]:
        named = (getattr(self, name, None) for name in ("log_ent_coef", "ent_coef_tensor"))
        return [tensor for tensor in named if isinstance(tensor, th.Tensor)]

    def _kind_of_update(self, gradient_step: int) -> tuple[bool, bool]:
        """Which branches the host's update takes: whether it updates the actor, and the targets."""
        delayed = self._n_updates % getattr(self, "policy_delay", 1) == 0
        return delayed, gradient_step % getattr(self, "target_update_interval", 1) == 0

    def get_parameters(self) -> dict[str, dict]:
        """As the host's; optimizers as they are without CUDA graphs, so that a saved agent can be loaded anywhere."""
        parameters = super().get_parameters()
        if self._graphs is None:
            return parameters
        return {name: without_capture(state) if name.endswith("optimizer") else state for name, state in parameters.items()}

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_graphs", "_has_stand_ins"]

    def _optimizers(self) -> list[th.optim.Optimizer]:
        optimizers = [self.actor.optimizer, self.critic.optimizer]
        ent_coef_optimizer = getattr(self, "ent_coef_optimizer", None)
        return optimizers if ent_coef_optimizer is None else [*optimizers, ent_coef_optimizer]

    def _field_inputs(self, replay_data: ReplayBufferSamples, successor: Successor) -> FieldInputs | None:
        """Where the weights ask for the field, with ``ε`` and ``v`` drawn; None if all weights are zero."""
        if not self._has_terms():
            return None
        points = (replay_data.observations, replay_data.actions, successor.observations)
        order = None
        batch_size = len(replay_data.actions)
        if self.pave_batch_size is not None and self.pave_batch_size < batch_size:
            # At random, since not every buffer draws in random order: HER does not
            order = th.randperm(batch_size, device=self.device)
            points = select(points, order[batch_size - self.pave_batch_size :])
        observations, actions, next_observations = points
        noisy_observations = direction = None
        if self.mpr_coef > 0:
            normalize_images = getattr(self.critic, "normalize_images", True)
            noisy_observations = perturb(observations, self.observation_space, self.mpr_sigma, normalize_images)
        if self.curv_coef > 0:
            direction = th.empty_like(actions).bernoulli_(0.5).mul_(2).sub_(1)
        whole = (replay_data.observations, replay_data.actions)
        return FieldInputs(*whole, noisy_observations, next_observations if self.vfc_coef > 0 else None, direction, order)

    def _critic_losses(
        self, replay_data: ReplayBufferSamples, successor: Successor, target: th.Tensor, log: UpdateLog
    ) -> list[Loss]:
        """
        The parts of ``L = L_TD + λ1 L_MPR + λ2 L_VFC + λ3 L_Curv``; exactly ``L_TD`` if all weights are zero.

        :param replay_data: the batch
        :param successor: its one-step successors
        :param target: of the TD loss
        :param log: takes the losses
        """
        inputs = self._field_inputs(replay_data, successor)
        closed_form = self._has_stand_ins or (has_closed_form(self.critic) and has_mode_free_features(self.critic))
        if inputs is not None and closed_form:
            # The field's own forward pass has the values
            return [self._pave_loss(inputs, successor, log, TdError(self._critic_output, self._td_loss, target))]
        current = self.critic(replay_data.observations, replay_data.actions)
        return self._with_terms(self._td_loss(current, target), inputs, successor, log)

    def _with_terms(self, td_loss: th.Tensor, inputs: FieldInputs | None, successor: Successor, log: UpdateLog) -> list[Loss]:
        """The TD loss and what PAVE adds to it, which is nothing without points to evaluate the field at."""
        if inputs is None:
            log.add(critic_loss=td_loss)
            return [td_loss]
        pave_loss = self._pave_loss(inputs, successor, log)
        log.add(critic_loss=td_loss.detach() + pave_loss.detach(), td_loss=td_loss)
        return [td_loss, pave_loss]

    def _pave_loss(self, inputs: FieldInputs, successor: Successor, log: UpdateLog, td: TdError | None = None) -> Loss:
        """``λ1 L_MPR + λ2 L_VFC + λ3 L_Curv``, and ``L_TD`` where the closed form is to evaluate it, too."""
        exists, rows = successor.exists, inputs.rows
        if exists is not None and rows is not None:
            exists = exists[rows]
        if td is not None or has_closed_form(self.critic):
            loss, scalars = mlp_critic_loss(
                self.critic, inputs, td, self._coefs(), self.curv_delta, exists, compile=self._compiles()
            )
            log.add(**scalars)
            return loss
        field = gradient_field(self.critic, inputs)
        losses = pave_losses(field, self.curv_delta, exists)
        log.add(**signals(field, losses))
        return weighted_sum(losses, self._coefs())

    def _features(self, observations: PyTorchObs) -> PyTorchObs:
        """What all networks take for the observations: stand-ins the features, which have no parameters."""
        if not self._has_stand_ins:
            return observations
        return self.critic.extract_features(observations, self.critic.features_extractor)

    def _function_of(self, critic: Any) -> Callable[..., Any]:
        """What to call with ``_features`` and actions: the critic, or its stand-in."""
        return mlp_critic(critic, self._critic_output) if self._has_stand_ins else critic

    def _evaluated(self, function: Callable[..., Any], *networks_and_inputs: Any) -> Any:
        """The function's value, through ``torch.compile`` where the networks are stand-ins and the user asks for it."""
        if self._has_stand_ins and self._compiles():
            return compiled(function)(*networks_and_inputs)
        return function(*networks_and_inputs)

    def _differentiated(self, loss: Callable[..., tuple[th.Tensor, Any]], *networks_and_inputs: Any) -> tuple[Loss, Any]:
        """Likewise for a loss to descend by the first network's parameters, and what else the function returns."""
        if self._has_stand_ins and self._compiles():
            return compiled_loss(loss, *networks_and_inputs)
        return loss(*networks_and_inputs)

    def _has_terms(self) -> bool:
        return self._coefs() != (0, 0, 0)

    def _coefs(self) -> tuple[float, float, float]:
        return self.mpr_coef, self.vfc_coef, self.curv_coef

    def _compiles(self) -> bool:
        return self.compile and can_compile(self.device)

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

    def _critics(self) -> list[Any]:
        return [getattr(self, name) for name in ("critic", "critic_target") if hasattr(self, name)]

    def _actors(self) -> list[Any]:
        return [getattr(self, name) for name in ("actor", "actor_target") if hasattr(self, name)]

    def _write_log(self, log: UpdateLog) -> None:
        values = log.read()
        check_finite(values, self._n_updates)
        for tag, per_update in values.items():
            self.logger.record(f"train/{tag}", fmean(per_update))

    def _check_hyperparameters(self) -> None:
        check_hyperparameters(self)
        if self.cuda_graph and type(self).train is not Pave.train:
            raise ValueError(f"cuda_graph=True records PAVE's own update, but {type(self).__name__} has a train() of its own.")

    def _init_callback(self, callback: MaybeCallback, *args: Any, **kwargs: Any) -> Any:
        refuse_parallel_training(callback)
        return super()._init_callback(callback, *args, **kwargs)


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
