"""How much a critic's action gradient turns relative to its size: what the PAVE terms MPR and VFC see, free of units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch as th
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import is_image_space
from torch import nn

from sb3_pave.evaluation.networks import (
    CriticChoice,
    NetworkInput,
    check_choice,
    chosen_value,
    critic_of,
    differentiable_keys,
    dtype_of,
    evaluation_mode,
    preprocess,
)
from sb3_pave.evaluation.observations import Observations, chunks, rows, state_dim
from sb3_pave.evaluation.smoothness import scale_actions

#: Standard deviation of the noise in the state, on what the critic sees, and of the exploration around the policy's action,
#: in half action ranges
NOISE, EXPLORATION = 0.01, 0.1

# Numbers in the observations whose gradients are taken together; bounds the memory, not the result
_CHUNK_ENTRIES = 4_000_000


@dataclass(frozen=True)
class FieldTurn:
    r"""
    Squares of :math:`\nabla_a Q` and of its changes, means over the action dimensions, at the ``n`` states of a rollout.

    :param size: :math:`\|\nabla_a Q(s, a)\|^2 / d_a`, shape ``(n,)``
    :param under_noise: :math:`\|\nabla_a Q(s + \epsilon, a) - \nabla_a Q(s, a)\|^2 / d_a`, shape ``(n,)``
    :param in_step: :math:`\|\nabla_a Q(s', a) - \nabla_a Q(s, a)\|^2 / d_a` with the next visited state :math:`s'`, shape
        ``(n - n_episodes,)``: the last state of an episode has none
    """

    size: NDArray[np.float64]
    under_noise: NDArray[np.float64]
    in_step: NDArray[np.float64]

    @property
    def noise_ratio(self) -> float:
        r""":return: :math:`\rho_N`, the mean of ``under_noise`` over that of ``size``; NaN of a flat critic"""
        return _ratio(self.under_noise, self.size)

    @property
    def step_ratio(self) -> float:
        r""":return: :math:`\rho_V`, the mean of ``in_step`` over that of ``size``; NaN of a flat critic or without a step"""
        return _ratio(self.in_step, self.size)


def field_turn(
    model: BaseAlgorithm,
    observations: Observations,
    actions: NDArray,
    lengths: list[int],
    critic: CriticChoice = 0,
    noise: float = NOISE,
    exploration: float = EXPLORATION,
    seed: int = 0,
) -> FieldTurn:
    r"""
    The turn of a critic's field along episodes, at explored actions :math:`a = clip(\pi(s) + \eta\,\xi, -1, 1)`,
    :math:`\xi \sim N(0, I)`, as a replay buffer holds them: at :math:`\pi(s)` itself the gradient all but vanishes. Close to a
    maximum of Q, :math:`\rho_N \approx (\sigma / \eta)^2\, \|\nabla^2_{sa} Q\|_F^2 / \|\nabla^2_{aa} Q\|_F^2`: the square of
    the bound :math:`M / \mu`, in other norms, without an eigenvalue.

    :param model: DDPG, TD3, SAC, TQC, CrossQ or a subclass of them
    :param observations: as the policy sees them, one episode after the other, shape ``(n, *observation_shape)``, or a dict of
        such arrays. The noise is added to all entries but categories, to images on [0, 1], whoever divides them by 255: with
        ``normalize_images=False`` their extractor does.
    :param actions: :math:`\pi(s)` in the environment's scale, shape ``(n, action_dim)``
    :param lengths: the number of steps of each episode
    :param critic: index of a critic of the ensemble, or ``"min"`` for the smallest at each point
    :param noise: :math:`\sigma`, standard deviation of :math:`\epsilon`
    :param exploration: :math:`\eta`, in half action ranges
    :param seed: of both, which are drawn from generators of their own: every agent gets the same
    :return: the squares
    :raises ValueError: if there is no such critic, or the model's critic is not made as Stable-Baselines3 makes them
    """
    network = critic_of(model)
    check_choice(critic, network)
    space = model.policy.action_space
    scaled = scale_actions(actions, space.low, space.high)  # type: ignore[attr-defined]
    n, action_dim = scaled.shape
    rng = np.random.default_rng([seed, 0])
    scaled = np.clip(scaled + exploration * rng.standard_normal((n, action_dim)), -1.0, 1.0)
    keys = differentiable_keys(model.observation_space)
    sensors = {key: np.random.default_rng([seed, 1 + i]) for i, key in enumerate(keys)}
    sigmas = {key: noise * _noise_scale(model.policy, key) for key in keys}

    last = np.cumsum(lengths) - 1
    next_index = np.minimum(np.arange(n) + 1, n - 1)
    size, under_noise, in_step = [], [], []
    with evaluation_mode(network):
        for here in chunks(n, max(1, _CHUNK_ENTRIES // max(1, state_dim(observations)))):
            action = th.as_tensor(scaled[here], dtype=dtype_of(network), device=model.policy.device)
            inputs = preprocess(model.policy, rows(observations, here))
            successors = preprocess(model.policy, rows(observations, next_index[here]))
            gradient = action_gradient(network, inputs, action, critic)
            size.append(_mean_square(gradient))
            noisy = _perturbed(inputs, sigmas, sensors)
            under_noise.append(_mean_square(action_gradient(network, noisy, action, critic) - gradient))
            in_step.append(_mean_square(action_gradient(network, successors, action, critic) - gradient))
    return FieldTurn(np.concatenate(size), np.concatenate(under_noise), np.delete(np.concatenate(in_step), last))


def action_gradient(critic: nn.Module, observations: NetworkInput, actions: th.Tensor, choice: CriticChoice = 0) -> th.Tensor:
    """
    :param critic: the critic of a model
    :param observations: preprocessed observations, shape ``(batch, ...)``
    :param actions: actions in [-1, 1], shape ``(batch, action_dim)``
    :param choice: index of a critic of the ensemble, or ``"min"``
    :return: ``∇_a Q``, shape ``(batch, action_dim)``, without a graph
    """
    with th.enable_grad():
        actions = actions.detach().requires_grad_()
        value = chosen_value(critic, observations, actions, choice)
        (gradient,) = th.autograd.grad(value.sum(), actions)
    return gradient


def _noise_scale(policy: BasePolicy, key: str | None) -> float:
    """As MPR has it: 1, and 255 for images that preprocessing leaves as they are."""
    space = policy.observation_space if key is None else policy.observation_space[key]  # type: ignore[index]
    return 255.0 if is_image_space(space) and not policy.normalize_images else 1.0


def _perturbed(
    inputs: NetworkInput, sigmas: dict[str | None, float], sensors: dict[str | None, np.random.Generator]
) -> NetworkInput:
    def add(value: th.Tensor, key: str | None) -> th.Tensor:
        noise = sensors[key].standard_normal(value.shape)
        return value + sigmas[key] * th.as_tensor(noise, dtype=value.dtype, device=value.device)

    if isinstance(inputs, dict):
        return {key: add(value, key) if key in sensors else value for key, value in inputs.items()}
    return add(inputs, None)


def _mean_square(values: th.Tensor) -> NDArray[np.float64]:
    return values.double().square().mean(dim=1).cpu().numpy()


def _ratio(change: NDArray[np.float64], size: NDArray[np.float64]) -> float:
    if not len(change) or not size.any():
        return float("nan")
    return float(change.mean() / size.mean())
