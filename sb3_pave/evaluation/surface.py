"""The Q-gradient field as a surface: how fast the action gradient turns with the state, over one state and one action."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch as th
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_pave.evaluation.derivatives import chunk_size, second_derivatives
from sb3_pave.evaluation.geometry import critic_geometry
from sb3_pave.evaluation.networks import CriticChoice, critic_of, dtype_of, evaluation_mode, preprocess
from sb3_pave.evaluation.observations import chunks
from sb3_pave.evaluation.rollout import Rollout, stack_actions, stack_observations
from sb3_pave.evaluation.smoothness import is_saturated, scale_actions

# The published picture: 50 x 50 points, the state over ±1 and the action over ±1.5 around the reference point
GRID_SIZE, STATE_RANGE, ACTION_RANGE = 50, 1.0, 1.5


@dataclass(frozen=True)
class SurfacePlane:
    """
    The plane that several critics are compared on.

    :param observation: reference state as the critic sees it, shape ``(state_dim,)``
    :param action: reference action in [-1, 1], shape ``(action_dim,)``
    :param state_index: the state dimension that varies
    :param action_index: the action dimension that varies
    :param state_axis: its values, shape ``(grid,)``
    :param action_axis: its values, shape ``(grid,)``; beyond ±1 no critic was trained
    """

    observation: NDArray[np.float64]
    action: NDArray[np.float64]
    state_index: int
    action_index: int
    state_axis: NDArray[np.float64]
    action_axis: NDArray[np.float64]


def surface_plane(
    model: BaseAlgorithm,
    rollout: Rollout,
    critic: CriticChoice = 0,
    grid_size: int = GRID_SIZE,
    state_range: float = STATE_RANGE,
    action_range: float = ACTION_RANGE,
) -> SurfacePlane:
    """
    The plane through a state that a reference agent visits, along the pair of dimensions in which its critic's action
    gradient turns fastest: the largest ``|∂²Q/∂s_i∂a_j|``, averaged over the visited states.

    The reference point is the visited pair of state and action nearest to the mean of all, in standard deviations; those
    with an action at a bound, where the best action need not be a maximum of the critic, come after all others.

    :param model: the reference agent
    :param rollout: its episodes, with observations
    :param critic: index of a critic of the ensemble, or ``"min"``
    :param grid_size: points along each axis
    :param state_range: the state varies by this much to either side, in the unit that the critic sees
    :param action_range: the action varies by this much to either side, in half action ranges
    :return: the plane
    :raises ValueError: if the observations are not vectors, or the model has no critic
    """
    _check_vector(model)
    network = critic_of(model)
    observations = stack_observations(rollout.episodes)
    assert isinstance(observations, np.ndarray)
    space = rollout.action_space
    actions = scale_actions(stack_actions(rollout.episodes), space.low, space.high)  # type: ignore[attr-defined]
    strength = np.zeros((actions.shape[1], observations.shape[1]))
    with evaluation_mode(network):
        for part in chunks(len(actions), chunk_size(observations, actions.shape[1])):
            _, mixed, _ = second_derivatives(
                network,
                preprocess(model.policy, observations[part]),
                th.as_tensor(actions[part], dtype=dtype_of(network), device=model.policy.device),
                critic,
            )
            strength += mixed.abs().sum(dim=0).cpu().numpy()
    action_index, state_index = np.unravel_index(int(strength.argmax()), strength.shape)

    points = np.concatenate([observations, actions], axis=1)
    spread = points.std(axis=0)
    distance = np.linalg.norm((points - points.mean(axis=0)) / np.where(spread > 0, spread, 1.0), axis=1)
    at_bound = is_saturated(actions, -1.0, 1.0).any(axis=1)
    centre = int(np.where(at_bound & ~at_bound.all(), np.inf, distance).argmin())
    steps = np.linspace(-1.0, 1.0, grid_size)
    return SurfacePlane(
        observation=observations[centre].astype(np.float64),
        action=actions[centre],
        state_index=int(state_index),
        action_index=int(action_index),
        state_axis=observations[centre, state_index] + state_range * steps,
        action_axis=actions[centre, action_index] + action_range * steps,
    )


def field_surface(model: BaseAlgorithm, plane: SurfacePlane, critic: CriticChoice = 0) -> NDArray[np.float64]:
    r"""
    :math:`\|\nabla^2_{sa} Q\|_2` of a critic over a plane.

    :param model: the agent
    :param plane: from :func:`surface_plane`, the same for all agents that are compared
    :param critic: index of a critic of the ensemble, or ``"min"``
    :return: shape ``(grid, grid)``, state along the first axis and action along the second
    :raises ValueError: if the observations are not vectors of the plane's size, or the model has no critic
    """
    _check_vector(model)
    if model.observation_space.shape != plane.observation.shape:
        raise ValueError(
            f"The plane was laid for observations of shape {plane.observation.shape}; "
            f"this model has {model.observation_space.shape}"
        )
    grid = (len(plane.state_axis), len(plane.action_axis))
    observations = np.tile(plane.observation, (grid[0] * grid[1], 1))
    actions = np.tile(plane.action, (grid[0] * grid[1], 1))
    observations[:, plane.state_index] = np.repeat(plane.state_axis, grid[1])
    actions[:, plane.action_index] = np.tile(plane.action_axis, grid[0])
    space = model.action_space
    unscaled = space.low.ravel() + (actions + 1.0) / 2.0 * (space.high - space.low).ravel()  # type: ignore[attr-defined]
    return critic_geometry(model, observations, unscaled, critic).mixed_norm.reshape(grid)


def _check_vector(model: BaseAlgorithm) -> None:
    space = model.observation_space
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise ValueError(f"The surface is drawn along one dimension of a vector observation; this model observes {space}")
