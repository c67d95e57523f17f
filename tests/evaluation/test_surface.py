"""The surface of critics whose field is known."""

import dataclasses
from copy import deepcopy

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
from torch import nn

from sb3_pave.evaluation import derivatives, surface
from sb3_pave.evaluation.rollout import Rollout, record_rollout
from sb3_pave.evaluation.surface import field_surface, surface_plane


class Cubic(nn.Module):
    """Q = 3 s_1 a + 0.5 s_2 a² : the mixed derivatives are (0, 3, a)."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(th.tensor([3.0, 0.5]))

    def forward(self, x):
        return (self.weight[0] * x[:, 1] * x[:, 3] + self.weight[1] * x[:, 2] * x[:, 3] ** 2)[:, None]


@pytest.fixture(scope="module")
def cubic():
    model = TD3("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, seed=0, device="cpu", buffer_size=10)
    model.critic.q_networks = [Cubic()]
    return model, record_rollout(model, make_vec_env("Pendulum-v1"), 2, seed=0)


def test_the_plane_lies_along_the_dominant_pair_through_a_visited_state(cubic):
    model, recorded = cubic
    plane = surface_plane(model, recorded)
    assert (plane.state_index, plane.action_index) == (1, 0)
    visited = np.concatenate([episode.observations for episode in recorded.episodes])
    row = np.flatnonzero((visited == plane.observation).all(axis=1))[0]
    taken = np.concatenate([episode.actions for episode in recorded.episodes])[row] / 2
    np.testing.assert_allclose(plane.action, taken, atol=1e-7)
    assert plane.state_axis.shape == plane.action_axis.shape == (50,)
    np.testing.assert_allclose([plane.state_axis[0], plane.state_axis[-1]], plane.observation[1] + np.array([-1, 1]))
    np.testing.assert_allclose([plane.action_axis[0], plane.action_axis[-1]], plane.action[0] + np.array([-1.5, 1.5]))


def test_states_are_taken_in_parts_that_fit_into_memory(cubic, monkeypatch):
    """400 states, and the second derivatives of 30 of them at most at once."""
    model, recorded = cubic
    whole, sizes = surface_plane(model, recorded), []
    differentiate = surface.second_derivatives
    monkeypatch.setattr(derivatives, "CHUNK_SIZE", 30)
    monkeypatch.setattr(surface, "second_derivatives", lambda *args: [sizes.append(len(args[2])), differentiate(*args)][1])
    parts = surface_plane(model, recorded)
    assert max(sizes) == 30 and sum(sizes) == 400
    assert (parts.state_index, parts.action_index) == (whole.state_index, whole.action_index)


def test_the_reference_action_is_not_at_a_bound_if_one_is_not(cubic):
    model, recorded = cubic
    episode = deepcopy(recorded.episodes[0])
    episode.actions[:] = 2.0
    episode.actions[150] = 0.5
    plane = surface_plane(model, Rollout([episode], recorded.action_space, True, 0))
    np.testing.assert_array_equal(plane.observation, episode.observations[150])
    assert plane.action == pytest.approx(0.25)


def test_heights_are_those_of_the_formula(cubic):
    model, recorded = cubic
    plane = surface_plane(model, recorded, grid_size=7)
    # ||(0, 3, a)||, whatever the state
    expected = np.tile(np.hypot(3.0, plane.action_axis), (7, 1))
    np.testing.assert_allclose(field_surface(model, plane), expected, rtol=1e-5)


def test_agents_that_observe_something_else_are_refused(cubic):
    model, recorded = cubic
    plane = surface_plane(model, recorded)
    other = SAC("MlpPolicy", "MountainCarContinuous-v0", device="cpu", buffer_size=10, policy_kwargs={"net_arch": [8]})
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        field_surface(other, plane)
    other.observation_space = spaces.Discrete(3)
    with pytest.raises(ValueError, match="vector observation"):
        field_surface(other, plane)


class Bent(nn.Module):
    """Q = 0.5 s_1² a : the mixed derivative is s_1."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(th.tensor(0.5))

    def forward(self, x):
        return (self.weight * x[:, 1] ** 2 * x[:, 3])[:, None]


def test_heights_change_with_the_state_along_the_first_axis(cubic):
    recorded = cubic[1]
    model = TD3("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, device="cpu", buffer_size=10)
    model.critic.q_networks = [Bent()]
    plane = surface_plane(model, recorded, grid_size=7)
    expected = np.tile(np.abs(plane.state_axis)[:, None], (1, 7))
    np.testing.assert_allclose(field_surface(model, plane), expected, rtol=1e-5)


def test_the_reference_state_is_the_nearest_to_the_mean_in_standard_deviations(cubic):
    """Also where every action is at a bound. The last one is nearer in the states' own units."""
    model, recorded = cubic
    observations = np.array([[-100, -0.1, 0], [100, 0.1, 0], [10, 0, 0], [0, 0.08, 0]], np.float32)
    episode = dataclasses.replace(recorded.episodes[0], observations=observations, actions=np.full((4, 1), 2.0))
    plane = surface_plane(model, Rollout([episode], recorded.action_space, True, 0))
    np.testing.assert_array_equal(plane.observation, observations[2])
