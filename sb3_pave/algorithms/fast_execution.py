"""The other ways to do an update: closed form, functions of tensors in place of modules, ``torch.compile``, CUDA graphs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch as th
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_pave.algorithms.execution import Execution, Network, Sample, Step
from sb3_pave.algorithms.recording import calls_only_known, networks_of, records
from sb3_pave.fast.capture import CudaCapture
from sb3_pave.fast.compiled import can_compile, compiled
from sb3_pave.fast.cpu_batches import sampling_on_cpu
from sb3_pave.fast.critic_loss import TdError, mlp_critic_loss
from sb3_pave.fast.differentiated import Loss, compiled_loss
from sb3_pave.fast.eligibility import has_closed_form, is_mode_free
from sb3_pave.fast.ensemble import lay_stacked
from sb3_pave.fast.fused_adam import fused_adam
from sb3_pave.fast.graphs import GraphedUpdate
from sb3_pave.fast.recorded_policy import RecordedPolicy
from sb3_pave.fast.stand_ins import is_mlp_actor, is_mlp_critic, mlp_actor, mlp_critic, see_the_same
from sb3_pave.fast.update_log import UpdateLog
from sb3_pave.fast.watch import Watch, fixed_numbers
from sb3_pave.method.terms import Terms


class ClosedForm(Execution):
    """
    PAVE's terms by the closed form of MLP critics, the networks as in the definition.

    :param model: the agent
    :param compile: whether the critic's loss goes through ``torch.compile``
    """

    def __init__(self, model: Any, compile: bool = False):
        super().__init__(model)
        self.compile = compile
        self._has_closed_form = has_closed_form(model.critic)
        self._has_values_too = self._has_closed_form and is_mode_free(model.critic)

    @contextmanager
    def training(self) -> Iterator[None]:
        # Without terms the parameters are to equal the host's, bit for bit; on a GPU recordings do it
        fuses = self.model.device.type == "cpu" and self.model._has_terms()
        with fused_adam(self.model._optimizers()) if fuses else nullcontext():
            yield

    def terms(self, terms: Terms) -> tuple[Loss, dict[str, th.Tensor]]:
        if not self._has_closed_form:
            return super().terms(terms)
        return mlp_critic_loss(self.model.critic, terms, None, self.compile)

    def td_and_terms(
        self, terms: Terms, td_loss: Callable[[Any, th.Tensor], th.Tensor], target: th.Tensor
    ) -> tuple[list[Loss], dict[str, th.Tensor]]:
        if not self._has_values_too:
            return super().td_and_terms(terms, td_loss, target)
        # The field's own forward pass has the values
        td = TdError(self.model._critic_output, td_loss, target, self.model._huber_share())
        loss, scalars = mlp_critic_loss(self.model.critic, terms, td, self.compile)
        return [loss], scalars


class StandIns(ClosedForm):
    """
    Functions of tensors in place of all networks, which take the features: MLPs have no parameters before them.
    """

    def features(self, observations: PyTorchObs) -> th.Tensor:
        critic = self.model.critic
        return critic.extract_features(observations, critic.features_extractor)

    def actor(self, actor: Any) -> Network:
        return mlp_actor(actor)

    def policy(self, actor: Any, observations: PyTorchObs) -> tuple[Any, Network, th.Tensor | None]:
        features = self.features(observations)
        shape = len(features), get_action_dim(self.model.action_space)
        return features, mlp_actor(actor), th.randn(shape, dtype=features.dtype, device=features.device)

    def critic(self, critic: Any) -> Network:
        return mlp_critic(critic, self.model._critic_output, is_constant=True)

    def first_critic(self, critic: Any) -> Network:
        return mlp_critic(critic, _first, n_critics=1)

    def td(
        self, observations: PyTorchObs, actions: th.Tensor, td_loss: Callable[[Any, th.Tensor], th.Tensor], target: th.Tensor
    ) -> Loss:
        critic = mlp_critic(self.model.critic, self.model._critic_output)
        return self.loss(_td_loss, critic, td_loss, self.features(observations), actions, target)[0]

    def value(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return compiled(function)(*arguments) if self.compile else function(*arguments)

    def loss(self, function: Callable[..., tuple[th.Tensor, Any]], *arguments: Any) -> tuple[Loss, Any]:
        return compiled_loss(function, *arguments) if self.compile else function(*arguments)


class Recorded(Execution):
    """
    Whole updates recorded as CUDA graphs and replayed.

    :param inner: how an update is done while it is recorded
    :param graphs: the recordings
    """

    def __init__(self, inner: Execution, graphs: GraphedUpdate):
        super().__init__(inner.model)
        self.inner = inner
        self.graphs = graphs

    @contextmanager
    def training(self) -> Iterator[None]:
        self.graphs.follow_learning_rates()
        with self.inner.training():
            yield

    def run(self, step: Step, sample: Sample, kind: Any, log: UpdateLog) -> None:
        with sampling_on_cpu(self.model.replay_buffer):
            batch = sample()

        def recorded(*batch: Any, log: UpdateLog) -> None:
            step(self.inner, *batch, log=log)

        # State-dependent noise is drawn anew in each update, and acting goes on with it
        noise = self.model.actor.action_dist if getattr(self.model, "use_sde", False) else None
        self.graphs.run(recorded, batch, kind, log, noise)


def choose_execution(model: Any) -> Execution:
    """
    The fastest way that the agent's networks and the user's settings allow; to be asked again when these may have changed,
    see ``Standing``.

    :param model: the agent
    """
    # Without terms nothing is compiled
    compiles = model.compile and model._has_terms() and can_compile(model.device)
    execution = (StandIns if _has_stand_ins(model) else ClosedForm)(model, compiles)
    return _recorded(execution) if records(model) else execution


def choose_acting(execution: Execution) -> RecordedPolicy | None:
    """
    How the agent acts where its updates are recorded; None: as SB3 has it. State-dependent noise is elsewhere whenever it is
    drawn anew.

    :param execution: how the updates are done
    """
    model = execution.model
    if not isinstance(execution, Recorded) or getattr(model, "use_sde", False) or not calls_only_known(model):
        return None
    return RecordedPolicy(model, execution.graphs.capture)


def _has_stand_ins(model: Any) -> bool:
    actors = [getattr(model, name) for name in ("actor", "actor_target") if hasattr(model, name)]
    critics = _critics(model)
    # Without terms the parameters are to equal the host's, bit for bit
    are_mlps = model._has_terms() and all(map(is_mlp_critic, critics)) and all(map(is_mlp_actor, actors))
    return are_mlps and see_the_same([*critics, *actors])


def _critics(model: Any) -> list[Any]:
    return [getattr(model, name) for name in ("critic", "critic_target") if hasattr(model, name)]


def _recorded(execution: Execution) -> Execution:
    model = execution.model
    if model._graphs is None:
        model._graphs = GraphedUpdate(CudaCapture(model.device), quiet=model.cuda_graph == "auto")
    if model._has_terms() and model._graphs.goes_on:
        for critic in _critics(model):
            if has_closed_form(critic) and is_mode_free(critic):
                lay_stacked(critic.q_networks)
    modules = networks_of(model)
    tensors = [tensor for module in modules for tensor in (*module._parameters.values(), *module._buffers.values())]
    tensors = [tensor for tensor in (*tensors, *model._own_tensors()) if tensor is not None]
    structure = (type(execution), Watch(model, modules, model._optimizers(), ()).structure)
    can_record = model._graphs.prepare(model._optimizers(), tensors, fixed_numbers(model), structure)
    return Recorded(execution, model._graphs) if can_record else execution


def _td_loss(
    critic: Network, td_loss: Callable[[Any, th.Tensor], th.Tensor], features: th.Tensor, actions: th.Tensor, target: th.Tensor
) -> tuple[th.Tensor, tuple[()]]:
    return td_loss(critic(features, actions), target), ()


def _first(values: th.Tensor) -> th.Tensor:
    return values[0]
