"""How an update's functions are evaluated and differentiated; what they are is in the hosts' files and in ``method``."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_pave.fast.differentiated import Loss
from sb3_pave.fast.update_log import UpdateLog
from sb3_pave.method.terms import Terms, evaluate_terms

# A module of the host, or what stands in for it: of observations (and noise), or of observations and actions
Network = Callable[..., Any]
# Draws the batch of an update; runs one on it
Sample = Callable[[], tuple[Any, ...]]
Step = Callable[..., None]


class Branches(NamedTuple):
    """
    What an update does beside the critics' step.

    :param terms: whether the critics' loss has PAVE's terms
    :param actor: whether the actor is updated
    :param targets: whether the targets are
    """

    terms: bool
    actor: bool
    targets: bool


class Execution:
    """
    The definition: the host's own modules, called one after the other, and autograd. Each of the others gives the same
    numbers sooner, see ``choose_execution``.

    :param model: the agent
    """

    def __init__(self, model: Any):
        # Kept by the agent: a strong reference would keep agent and replay buffer until the garbage collector comes
        self._model = weakref.ref(model)

    @property
    def model(self) -> Any:
        return self._model()

    @contextmanager
    def training(self) -> Iterator[None]:
        """Around the updates of a ``train()`` call."""
        yield

    def run(self, step: Step, sample: Sample, kind: Any, log: UpdateLog) -> None:
        """
        One update.

        :param step: takes an execution, the parts of the batch, and a log
        :param sample: draws the batch
        :param kind: which of its branches the update takes
        :param log: takes what the step logs
        """
        step(self, *sample(), log=log)

    def features(self, observations: PyTorchObs) -> Any:
        """What all networks below take for the observations."""
        return observations

    def actor(self, actor: Any) -> Network:
        """TD3's ``actor(s)``."""
        return actor

    def policy(self, actor: Any, observations: PyTorchObs) -> tuple[Any, Network, th.Tensor | None]:
        """SAC's ``actor.action_log_prob(s)``, drawn now: what to give it for ``s``, the function, the noise to give it."""
        drawn = actor.action_log_prob(observations)
        return observations, lambda *_: drawn, None

    def critic(self, critic: Any) -> Network:
        """All critics of the ensemble."""
        return critic

    def first_critic(self, critic: Any) -> Network:
        """The first of them, which TD3's actor climbs."""
        return critic.q1_forward

    def value(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """A function of networks and tensors."""
        return function(*arguments)

    def loss(self, function: Callable[..., tuple[th.Tensor, Any]], *arguments: Any) -> tuple[Loss, Any]:
        """A loss to descend by the first network's parameters, and what else the function returns."""
        return function(*arguments)

    def td(
        self, observations: PyTorchObs, actions: th.Tensor, td_loss: Callable[[Any, th.Tensor], th.Tensor], target: th.Tensor
    ) -> Loss:
        """
        The critic's loss without PAVE's terms.

        :param observations: of the batch
        :param actions: of the batch
        :param td_loss: of what the critic returns for them, and the target
        :param target: of the batch
        """
        return td_loss(self.model.critic(observations, actions), target)

    def terms(self, terms: Terms) -> tuple[Loss, dict[str, th.Tensor]]:
        """PAVE's terms of the critic's loss, and what the log shows of them."""
        return evaluate_terms(self.model.critic, terms)

    def td_and_terms(
        self, terms: Terms, td_loss: Callable[[Any, th.Tensor], th.Tensor], target: th.Tensor
    ) -> tuple[list[Loss], dict[str, th.Tensor]]:
        """
        The whole loss of the critic, in parts, and what the log shows of it.

        :param terms: at the batch
        :param td_loss: of what the critic returns for the batch, and the target
        :param target: of the batch
        """
        current = self.model.critic(terms.inputs.observations, terms.inputs.actions)
        td, logged = td_loss(current, target), {}
        if (huber_share := self.model._huber_share()) is not None:
            share = logged["huber_share"] = huber_share(current, target, td)
            terms = terms._replace(coefs=[share * coef for coef in terms.coefs])
        loss, scalars = self.terms(terms)
        return [td, loss], {"critic_loss": td.detach() + loss.detach(), "td_loss": td.detach(), **logged, **scalars}
