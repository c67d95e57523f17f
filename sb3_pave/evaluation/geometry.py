"""Geometry of a critic at given states and actions: exact second derivatives, a batch at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch as th
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn

from sb3_pave.evaluation.derivatives import chunk_size, second_derivatives
from sb3_pave.evaluation.networks import (
    CriticChoice,
    NetworkInput,
    check_agreement,
    check_choice,
    critic_of,
    critic_values,
    differentiable_keys,
    dtype_of,
    evaluation_mode,
    preprocess,
)
from sb3_pave.evaluation.observations import Observations, chunks, rows
from sb3_pave.evaluation.smoothness import scale_actions
from sb3_pave.user_warning import warn_user


@dataclass(frozen=True)
class CriticGeometry:
    r"""
    Derivatives of one critic at ``n`` states and actions.

    :param gradient: :math:`\nabla_a Q`, shape ``(n, action_dim)``
    :param mixed_norm: :math:`\|\nabla^2_{sa} Q\|_2`, the largest singular value, shape ``(n,)``
    :param eigenvalues: those of :math:`\nabla^2_{aa} Q`, ascending, shape ``(n, action_dim)``
    """

    gradient: NDArray[np.float64]
    mixed_norm: NDArray[np.float64]
    eigenvalues: NDArray[np.float64]

    @property
    def trace(self) -> NDArray[np.float64]:
        r""":return: the trace of :math:`\nabla^2_{aa} Q`, shape ``(n,)``"""
        return self.eigenvalues.sum(axis=1)

    @property
    def negative_definite(self) -> NDArray[np.bool_]:
        r""":return: whether all eigenvalues of :math:`\nabla^2_{aa} Q` are negative, shape ``(n,)``"""
        return self.eigenvalues[:, -1] < 0

    @property
    def mu(self) -> NDArray[np.float64]:
        r""":return: :math:`\mu = |\lambda_{max}(\nabla^2_{aa} Q)|`, shape ``(n,)``; NaN where the critic is not concave"""
        return np.where(self.negative_definite, -self.eigenvalues[:, -1], np.nan)

    @property
    def lipschitz_bound(self) -> NDArray[np.float64]:
        r""":return: :math:`M / \mu`, shape ``(n,)``; NaN where the critic is not concave"""
        return self.mixed_norm / self.mu


def critic_geometry(
    model: BaseAlgorithm,
    observations: Observations,
    actions: NDArray,
    critic: CriticChoice = 0,
) -> CriticGeometry:
    """
    Exact geometry of a critic at given states and actions.

    :param model: DDPG, TD3, SAC, TQC, CrossQ or a subclass of them
    :param observations: as the policy sees them (normalised if ``VecNormalize`` is in use), shape
        ``(n, *observation_shape)``, or a dict of such arrays. Derivatives are taken of all entries but categories.
    :param actions: actions in the environment's scale, shape ``(n, action_dim)``
    :param critic: index of a critic of the ensemble, or ``"min"`` for the smallest at each state
    :return: the geometry
    :raises ValueError: if there is no such critic, or the model's critic is not made as Stable-Baselines3 makes them
    """
    network = critic_of(model)
    check_choice(critic, network)
    space = model.policy.action_space
    scaled = scale_actions(actions, space.low, space.high)  # type: ignore[attr-defined]
    keys = differentiable_keys(model.observation_space)
    gradients, norms, eigenvalues = [], [], []
    with evaluation_mode(network):
        for chunk in chunks(len(scaled), chunk_size(observations, scaled.shape[1])):
            part = rows(observations, chunk)
            inputs = preprocess(model.policy, part)
            action = th.as_tensor(scaled[chunk], dtype=dtype_of(network), device=model.policy.device)
            if chunk.start == 0:
                _check_critic(model, network, part, inputs, action)
            gradient, mixed, hessian = second_derivatives(network, inputs, action, critic, keys)
            gradients.append(gradient.cpu().numpy())
            norms.append(th.linalg.matrix_norm(mixed, ord=2).cpu().numpy())
            eigenvalues.append(th.linalg.eigvalsh(hessian).cpu().numpy())
    result = CriticGeometry(*(np.concatenate(parts).astype(np.float64) for parts in (gradients, norms, eigenvalues)))
    if not result.mixed_norm.any() and not result.eigenvalues.any():
        warn_user(
            f"The critic of this {type(model).__name__} is linear wherever it was looked at (ReLU?): all its second "
            "derivatives are 0 and say nothing. Train with a smooth activation, policy_kwargs=dict(activation_fn=nn.SiLU)."
        )
    return result


def _check_critic(
    model: BaseAlgorithm, critic: nn.Module, part: Observations, inputs: NetworkInput, actions: th.Tensor
) -> None:
    """Compare with the critic's own forward pass, which works in float32 only."""
    if dtype_of(critic) != th.float32:
        return
    with th.no_grad():
        output = critic(model.policy.obs_to_tensor(part)[0], actions)  # type: ignore[arg-type]
        # TQC stacks the quantiles of its critics, the others return one column each
        theirs = output.mean(dim=2).T if isinstance(output, th.Tensor) else th.cat(output, dim=1).T
        check_agreement(critic_values(critic, inputs, actions), theirs, critic)
