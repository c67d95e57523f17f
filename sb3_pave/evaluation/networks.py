"""A model's actor and critics as differentiable functions of preprocessed observations.

SB3's own forward passes preprocess (cast to float32, divide images by 255, one-hot encode categories) and, with a shared
features extractor, cut the gradient with respect to the observation. These functions begin behind that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeGuard

import numpy as np
import torch as th
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from torch import nn

from sb3_pave.evaluation.observations import Observations

#: What a network sees: a float tensor, or a dict of them
NetworkInput = th.Tensor | dict[str, th.Tensor]

#: Which critic: its index in the ensemble, or the smallest of all at each state
CriticChoice = int | Literal["min"]

# Float32 round-off of a deep network, in units of the largest value
_AGREEMENT = 1e-3


def preprocess(policy: BasePolicy, observations: Observations) -> NetworkInput:
    """
    Observations as the policy's networks see them, on its device and in its precision.

    :param policy: the policy of a model
    :param observations: as given to ``predict`` (normalised if ``VecNormalize`` is in use), shape
        ``(batch, *observation_shape)``, or a dict of such arrays
    :return: floats; images on [0, 1], categories one-hot
    """
    observations, _ = policy.obs_to_tensor(observations)  # type: ignore[arg-type, assignment]
    inputs = preprocess_obs(observations, policy.observation_space, normalize_images=policy.normalize_images)  # type: ignore[arg-type]
    dtype = dtype_of(policy)
    if isinstance(inputs, dict):
        return {key: value.to(dtype) for key, value in inputs.items()}
    return inputs.to(dtype)


def differentiable_keys(observation_space: spaces.Space) -> list[str | None]:
    """
    The entries of an observation that a derivative with respect to the state is taken of: those that are not categories.

    :param observation_space: the observation space of a model
    :return: keys of a ``Dict`` space, ``[None]`` for an observation that is a single array
    :raises ValueError: if there is no such entry
    """
    by_key: dict[Any, spaces.Space] = (
        dict(observation_space.spaces) if isinstance(observation_space, spaces.Dict) else {None: observation_space}
    )
    keys = [key for key, space in by_key.items() if isinstance(space, spaces.Box)]
    if not keys:
        raise ValueError(f"No derivative with respect to the state is defined: all of {observation_space} is categorical")
    return keys


def critic_of(model: BaseAlgorithm) -> nn.Module:
    """
    The Q-value network of a model.

    :param model: DDPG, TD3, SAC, TQC, CrossQ or a subclass of them
    :return: its ensemble of critics
    :raises ValueError: if the model has no critic of state and action
    """
    critic = getattr(model, "critic", None)
    if not isinstance(getattr(critic, "q_networks", None), list) or not hasattr(critic, "features_extractor"):
        raise ValueError(
            f"{type(model).__name__} has no critic Q(s, a) made as Stable-Baselines3 makes them; "
            "its smoothness and its actor's Jacobian can be measured, its critic's geometry cannot"
        )
    assert isinstance(critic, nn.Module)
    return critic


def critic_values(critic: nn.Module, observations: NetworkInput, actions: th.Tensor) -> th.Tensor:
    """
    The Q-value of every critic of the ensemble, in evaluation mode; of a distributional critic (TQC), its mean over the
    quantiles.

    :param critic: the critic of a model, see :func:`critic_of`
    :param observations: preprocessed observations, shape ``(batch, ...)``
    :param actions: actions in [-1, 1], shape ``(batch, action_dim)``
    :return: values, shape ``(n_critics, batch)``
    """
    ensemble: Any = critic
    with evaluation_mode(critic):
        inputs = th.cat([ensemble.features_extractor(observations), actions], dim=1)
        # One output is its own mean
        return th.stack([q_network(inputs).mean(dim=1) for q_network in ensemble.q_networks])


def chosen_value(critic: nn.Module, observations: NetworkInput, actions: th.Tensor, choice: CriticChoice) -> th.Tensor:
    """
    The Q-value of one critic, or the smallest of all, in evaluation mode.

    :param critic: the critic of a model, see :func:`critic_of`
    :param observations: preprocessed observations, shape ``(batch, ...)``
    :param actions: actions in [-1, 1], shape ``(batch, action_dim)``
    :param choice: index of a critic of the ensemble, or ``"min"``
    :return: values, shape ``(batch,)``
    """
    values = critic_values(critic, observations, actions)
    return values.min(dim=0).values if choice == "min" else values[choice]


def check_choice(choice: CriticChoice, critic: nn.Module) -> None:
    """
    :param choice: index of a critic of the ensemble, or ``"min"``
    :param critic: the ensemble, see :func:`critic_of`
    :raises ValueError: if there is no such critic
    """
    n_critics = len(critic.q_networks)  # type: ignore[arg-type]
    if choice != "min" and not (isinstance(choice, int) and 0 <= choice < n_critics):
        raise ValueError(f'There is no critic {choice!r}: choose 0 to {n_critics - 1} or "min"')


def actor_output(policy: BasePolicy, observations: NetworkInput) -> th.Tensor:
    """
    The deterministic output of the policy's actor: in [-1, 1] if ``policy.squash_output``, else in the environment's
    scale and not yet clipped to the bounds.

    :param policy: the policy of a TD3, DDPG, SAC, TQC, CrossQ, PPO or A2C model, or of a subclass of them
    :param observations: preprocessed observations, shape ``(batch, ...)``
    :return: actions, shape ``(batch, action_dim)``
    :raises ValueError: if the policy is of another kind
    """
    parts: Any = policy
    if isinstance(policy, ActorCriticPolicy) and not hasattr(policy, "lstm_actor"):
        latent = parts.mlp_extractor.forward_actor(parts.pi_features_extractor(observations))
        output = parts.action_net(latent)
        return th.tanh(output) if policy.squash_output else output
    actor: Any = getattr(policy, "actor", None)
    if hasattr(actor, "features_extractor") and hasattr(actor, "mu"):
        features = actor.features_extractor(observations)
        if hasattr(actor, "latent_pi"):  # SAC, TQC, CrossQ: the mean before the tanh
            return th.tanh(actor.mu(actor.latent_pi(features)))
        return actor.mu(features)  # TD3, DDPG: the tanh is its last layer
    raise ValueError(f"The actor of {type(policy).__name__} is not one of TD3, DDPG, SAC, TQC, CrossQ, PPO or A2C")


def scaled_policy(policy: BasePolicy, observations: NetworkInput) -> th.Tensor:
    """
    The deterministic action in [-1, 1], as the replay buffer holds it.

    :param policy: the policy of a model with a ``Box`` action space
    :param observations: preprocessed observations, shape ``(batch, ...)``
    :return: actions, shape ``(batch, action_dim)``; those that can't be scaled are returned as they are
    """
    output = actor_output(policy, observations)
    space = policy.action_space
    if policy.squash_output or not is_scalable(space):
        return output
    low, high = (th.as_tensor(bound.ravel(), dtype=output.dtype, device=output.device) for bound in (space.low, space.high))
    return 2.0 * (output.clamp(low, high) - low) / (high - low) - 1.0


def is_scalable(space: spaces.Space) -> TypeGuard[spaces.Box]:
    """
    :param space: an action space
    :return: whether its bounds are finite and apart, so that actions can be scaled to [-1, 1]
    """
    return isinstance(space, spaces.Box) and space.is_bounded() and bool((space.low < space.high).all())


def check_agreement(ours: th.Tensor, theirs: th.Tensor, network: nn.Module, rounding: NDArray | float = 0.0) -> None:
    """
    Refuse a network whose own forward pass computes something else than these functions.

    :param ours: values from :func:`critic_values` or :func:`scaled_policy`
    :param theirs: the same from the network's own forward pass
    :param network: the network, named in the error
    :param rounding: what float32 takes from ``theirs`` beyond a network's own round-off, a number or one for each column
    :raises ValueError: if the two differ by more than float32 round-off, or are no numbers
    """
    name = type(network).__name__
    if not bool(th.isfinite(ours).all() and th.isfinite(theirs).all()):
        raise ValueError(f"The output of {name} contains NaN or infinity: it has diverged, and can't be measured")
    difference = (ours - theirs).abs()
    tolerance = _AGREEMENT * max(1.0, float(theirs.abs().max())) + th.as_tensor(rounding, device=difference.device)
    if not bool((difference <= tolerance).all()):
        raise ValueError(
            f"{name} overrides its forward pass (it differs by {float(difference.max()):.2g} from that of Stable-Baselines3): "
            "it can't be measured"
        )


def action_rounding(space: spaces.Box) -> NDArray[np.float64]:
    """
    What is lost of an action in [-1, 1] when it goes to the environment's bounds and back in float32: much, where these lie
    close together and far from zero.

    :param space: a bounded action space
    :return: in half action ranges, shape ``(action_dim,)``
    """
    low, high = space.low.ravel().astype(np.float64), space.high.ravel().astype(np.float64)
    # A rounding each of the bounds, their difference, the product and the sum, each by half a unit in the last place
    return 4.0 * np.finfo(np.float32).eps * np.maximum(np.abs(low), np.abs(high)) / ((high - low) / 2.0)


def dtype_of(module: nn.Module) -> th.dtype:
    """
    :param module: a network
    :return: the type of its parameters
    """
    return next(module.parameters()).dtype


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """
    Every submodule in evaluation mode inside (running statistics, no dropout), in its own mode again afterwards.

    :param module: a network
    """
    training = [submodule for submodule in module.modules() if submodule.training]
    module.eval()
    try:
        yield
    finally:
        for submodule in training:
            submodule.training = True
