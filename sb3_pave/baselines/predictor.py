"""ASAP's prediction of the next action: a second head of an actor, and the moving average of both."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch as th
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn
from torch.func import functional_call

from sb3_pave.baselines.actions import deterministic_actions
from sb3_pave.method.points import evaluating


def last_hidden_layer(actor: Any) -> nn.Module:
    """
    The layer whose input is the actor's last hidden layer.

    :param actor: as SB3's: ``mu`` of TD3's ends with a linear layer and a tanh, ``mu`` of SAC's follows ``latent_pi``
    :raises TypeError: if it is not made so
    """
    mu = getattr(actor, "mu", None)
    if hasattr(actor, "latent_pi") and isinstance(mu, nn.Module):
        return mu
    if isinstance(mu, nn.Sequential) and len(mu) > 1 and isinstance(mu[-1], nn.Tanh) and isinstance(mu[-2], nn.Linear):
        return mu[-2]
    raise TypeError(
        f"ASAP puts a second head on the actor's last hidden layer, which it does not find in {type(actor).__name__}. Make it "
        "as SB3's: with latent_pi and mu as SAC's, or with mu a Sequential that ends with a Linear and a Tanh as TD3's."
    )


def actions_and_latents(actor: Any, *observations: PyTorchObs) -> tuple[tuple[th.Tensor, ...], tuple[th.Tensor, ...]]:
    """
    The actor's deterministic actions as by ``deterministic_actions``, and its last hidden layer.

    :param actor: for which ``last_hidden_layer`` finds one
    :param observations: batches of the same size
    :return: one tensor of shape (batch, action_dim) for each, and one of shape (batch, width) for each
    """
    with recording_latents(actor) as latents:
        actions = deterministic_actions(actor, *observations)
    return actions, latents[0].chunk(len(observations))


@contextmanager
def recording_latents(actor: Any) -> Iterator[list[th.Tensor]]:
    """
    The inputs of the actor's last layer in this context.

    :param actor: for which ``last_hidden_layer`` finds one
    """
    latents: list[th.Tensor] = []
    hook = last_hidden_layer(actor).register_forward_pre_hook(lambda _, inputs: latents.append(inputs[0]))
    try:
        yield latents
    finally:
        hook.remove()


class Predictor:
    """
    ``P``, a linear layer on the actor's last hidden layer (with TD3's actor followed by a tanh), and ``P̄``, that layer on that
    of the moving average of the whole actor. It is no part of the actor's modules, so that those stay the host's own. Made, it
    has to be started or restored.

    :param actor: of the agent
    :param optimizer_class: of the policy; the head has an optimizer of its own, in step with the actor's
    :param optimizer_kwargs: of the policy
    """

    def __init__(self, actor: Any, optimizer_class: type[th.optim.Optimizer], optimizer_kwargs: dict[str, Any]):
        self._actor = actor
        self._squashes = not hasattr(actor, "latent_pi")
        linear = last_hidden_layer(actor)
        width = next(layer.in_features for layer in linear.modules() if isinstance(layer, nn.Linear))
        weight = next(linear.parameters())
        sizes = (width, get_action_dim(actor.action_space))
        # Without initial values: what is restored draws no random numbers
        self.head = nn.utils.skip_init(nn.Linear, *sizes, device=weight.device, dtype=weight.dtype)
        # Some classes can't do without a rate
        rate = {"lr": actor.optimizer.param_groups[0]["lr"]}
        self.optimizer = optimizer_class(self.head.parameters(), **rate, **optimizer_kwargs)
        self._average: dict[str, th.Tensor] = {}

    def predict(self, latent: th.Tensor) -> th.Tensor:
        """
        ``P(s)``, shape (batch, action_dim).

        :param latent: the actor's last hidden layer at ``s``
        """
        return self._output(self.head(latent))

    @th.no_grad()
    def average_prediction(self, observations: PyTorchObs) -> th.Tensor:
        """
        ``P̄(s)``, shape (batch, action_dim), without a gradient.

        :param observations: ``s``
        """
        state = {name.removeprefix("actor."): value for name, value in self._average.items() if name.startswith("actor.")}
        deterministic = {} if self._squashes else {"deterministic": True}
        with evaluating(self._actor), recording_latents(self._actor) as latents:
            functional_call(self._actor, state, (observations,), deterministic)
        weight, bias = self._average["head.weight"], self._average["head.bias"]
        return self._output(nn.functional.linear(latents[0], weight, bias))

    @th.no_grad()
    def update_average(self, tau: float) -> None:
        """
        Move the average towards actor and head; running statistics are copied, as SB3 does for its targets.

        :param tau: ``τ``, the step
        """
        learned = {id(parameter) for module in (self._actor, self.head) for parameter in module.parameters()}
        for name, value in self._current().items():
            if id(value) in learned:
                self._average[name].lerp_(value, tau)
            else:
                self._average[name].copy_(value)

    def step(self, learning_rate: Any) -> None:
        """
        One step of the head's optimizer.

        :param learning_rate: that of the actor's optimizer
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def dumped(self, n_updates: int) -> bytes:
        """
        Head, its optimizer and the average, for ``restore``.

        :param n_updates: the agent's number of updates
        """
        stream = io.BytesIO()
        state = {"head": self.head.state_dict(), "optimizer": self.optimizer.state_dict(), "average": self._average}
        th.save({**state, "n_updates": n_updates}, stream)
        return stream.getvalue()

    def start(self) -> None:
        """With a new head, and the average where the actor is."""
        self.head.reset_parameters()
        self._average = {name: value.detach().clone() for name, value in self._current().items()}

    def restore(self, dumped: bytes, n_updates: int) -> bool:
        """
        Take over what was dumped, unless the agent has been trained without it since.

        :param dumped: by ``dumped``
        :param n_updates: the agent's number of updates
        :return: whether it was taken over
        """
        state = th.load(io.BytesIO(dumped), map_location=self.head.weight.device, weights_only=True)
        if state["n_updates"] != n_updates:
            return False
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._average = state["average"]
        return True

    def _output(self, values: th.Tensor) -> th.Tensor:
        return values.tanh() if self._squashes else values

    def _current(self) -> dict[str, th.Tensor]:
        """Parameters and buffers of actor and head by name."""
        state = {f"actor.{name}": value for name, value in self._actor.named_parameters()}
        state |= {f"actor.{name}": value for name, value in self._actor.named_buffers()}
        return state | {f"head.{name}": value for name, value in self.head.named_parameters()}
