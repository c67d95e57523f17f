"""SB3's MLP actors and critics as functions of tensors, fit to be compiled; each equals calling its module."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch as th
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution
from stable_baselines3.common.policies import BaseModel, ContinuousCritic
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor
from stable_baselines3.sac import policies as gaussian
from stable_baselines3.td3.policies import Actor as DeterministicActorModule
from torch import nn

from sb3_pave.fast.eligibility import has_closed_form, is_mode_free, of_contrib
from sb3_pave.fast.ensemble import (
    Ensemble,
    Parameters,
    activations_of_mlp,
    ensemble_in_memory,
    has_hooks,
    is_mlp_of,
    mlp,
    parameters_of_mlp,
    stacked_mlps,
)

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_EPSILON = 1e-6  # SB3's, against log(0)


class MlpCritic(NamedTuple):
    """
    ``critic(s, a)`` of a module for which ``is_mlp_critic`` holds.

    :param parameters: of its networks
    :param activations: of their hidden layers
    :param output: makes what the module returns of the networks' outputs, shape (n, rows, outputs)
    :param stack: the networks as one, where they lie stacked in memory; without a gradient to the parameters
    """

    parameters: tuple[Parameters, ...]
    activations: tuple[nn.Module, ...]
    output: Callable[[th.Tensor], Any]
    stack: Ensemble | None = None

    def __call__(self, features: th.Tensor, actions: th.Tensor) -> Any:
        inputs = th.cat([features, actions], dim=1)
        if self.stack is not None:
            return self.output(stacked_mlps(self.stack, inputs))
        return self.output(th.stack([mlp(network, self.activations, inputs) for network in self.parameters]))


class DeterministicActor(NamedTuple):
    """
    TD3's ``actor(s)``.

    :param parameters: of its network
    :param activations: of the hidden layers
    """

    parameters: Parameters
    activations: tuple[nn.Module, ...]

    def __call__(self, features: th.Tensor) -> th.Tensor:
        return th.tanh(mlp(self.parameters, self.activations, features))


class GaussianActor(NamedTuple):
    """
    SAC's ``actor.action_log_prob(s)`` where actions are drawn from a Gaussian and squashed.

    :param parameters: of the hidden layers, the mean and the logarithm of the standard deviation
    :param activations: of the hidden layers
    """

    parameters: Parameters
    activations: tuple[nn.Module, ...]

    def __call__(self, features: th.Tensor, noise: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        :param features: shape (batch, features_dim)
        :param noise: standard normal, shape (batch, action_dim)
        :return: actions, and their log-probabilities of shape (batch,)
        """
        *hidden, mean_weight, mean_bias, std_weight, std_bias = self.parameters
        heads = (th.cat([mean_weight, std_weight]), th.cat([mean_bias, std_bias]))
        mean, log_std = mlp((*hidden, *heads), self.activations, features).chunk(2, dim=1)
        log_std = log_std.clamp(gaussian.LOG_STD_MIN, gaussian.LOG_STD_MAX)
        actions = th.tanh(mean + noise * log_std.exp())
        log_prob = (-0.5 * noise.square() - log_std - _LOG_SQRT_2PI).sum(dim=1)
        return actions, log_prob - th.log(1 - actions.square() + _EPSILON).sum(dim=1)


def mlp_critic(
    critic: Any, output: Callable[[th.Tensor], Any], n_critics: int | None = None, is_constant: bool = False
) -> Any:
    """
    :param critic: a module for which ``is_mlp_critic`` holds
    :param output: see ``MlpCritic``
    :param n_critics: the first of its networks only; None: all
    :param is_constant: whether nobody wants its gradient with respect to its parameters
    :return: a ``MlpCritic``
    """
    networks = critic.q_networks[:n_critics]
    parameters, activations = tuple(map(parameters_of_mlp, networks)), activations_of_mlp(networks[0])
    stack = ensemble_in_memory(parameters, activations) if is_constant and len(networks) > 1 else None
    return MlpCritic(parameters, activations, output, stack)


def mlp_actor(actor: Any) -> Any:
    """
    :param actor: a module for which ``is_mlp_actor`` holds
    :return: a ``DeterministicActor`` or ``GaussianActor``
    """
    if not hasattr(actor, "log_std"):
        # Its last activation is the tanh
        return DeterministicActor(parameters_of_mlp(actor.mu), activations_of_mlp(actor.mu)[:-1])
    heads = (actor.mu.weight, actor.mu.bias, actor.log_std.weight, actor.log_std.bias)
    return GaussianActor((*parameters_of_mlp(actor.latent_pi), *heads), activations_of_mlp(actor.latent_pi))


def is_mlp_critic(critic: Any) -> bool:
    """
    Whether ``MlpCritic`` can stand in for the critic: SB3's own, or that of sb3-contrib's TQC, on flat features.

    :param critic: the module
    """
    q1_forward = getattr(type(critic), "q1_forward", None)
    own_first = q1_forward is None or q1_forward is ContinuousCritic.q1_forward
    return own_first and has_closed_form(critic) and is_mode_free(critic) and _is_plain(critic)


def is_mlp_actor(actor: Any) -> bool:
    """
    Whether a function of this module can stand in for the actor: SB3's own, or that of sb3-contrib's TQC, on flat features
    and without state-dependent exploration.

    :param actor: the module
    """
    own = type(actor)
    if not _is_plain(actor) or own.extract_features is not BaseModel.extract_features:
        return False
    if own.forward is DeterministicActorModule.forward:
        *layers, last = _layers(actor.mu)
        return _is_mlp_with_biases(layers) and type(last) is nn.Tanh and not has_hooks(last)
    names = ("action_log_prob", "get_action_dist_params")
    known = (gaussian.Actor, *of_contrib("tqc", "Actor"))
    return (
        any(all(getattr(own, name, None) is getattr(upstream, name) for name in names) for upstream in known)
        and type(actor.action_dist) is SquashedDiagGaussianDistribution
        and actor.action_dist.epsilon == _EPSILON
        and all(_is_mlp_with_biases([*_layers(actor.latent_pi), head]) for head in (actor.mu, actor.log_std))
    )


def _layers(network: nn.Module) -> list[nn.Module]:
    """The layers that the network calls one after the other; itself alone, where it may do anything else."""
    return list(network) if type(network) is nn.Sequential and not has_hooks(network) else [network]


def _is_mlp_with_biases(layers: list[Any]) -> bool:
    return is_mlp_of(layers) and all(layer.bias is not None for layer in layers[::2])


def see_the_same(networks: Sequence[Any]) -> bool:
    """
    Whether the features of one network are those of all of them; each may have an extractor of its own.

    :param networks: for which ``is_mlp_critic`` or ``is_mlp_actor`` holds
    """
    first, *others = (
        (network.observation_space, network.normalize_images, repr(network.features_extractor)) for network in networks
    )
    return all(other == first for other in others)


def _is_plain(module: Any) -> bool:
    """Whether calling the module flattens observations, by an extractor without parameters, and does what its class says."""
    extractor: Any = getattr(module, "features_extractor", None)  # a network of the user's need not have one
    if type(extractor) not in (FlattenExtractor, CombinedExtractor) or next(extractor.parameters(), None) is not None:
        return False
    return not any(has_hooks(part) or getattr(part, "_compiled_call_impl", None) for part in (module, *extractor.modules()))
