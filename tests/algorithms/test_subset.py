"""The three terms on a part of each batch: same field, unbiased loss, every kind of buffer."""

import inspect
from itertools import combinations

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import TD3, HerReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_pave import PAVE_SAC, PAVE_TD3
from sb3_pave.method.losses import pave_losses
from sb3_pave.method.points import FieldInputs
from tests.algorithms.environments import CountingEnv, is_one_step
from tests.method.closed_form import closed_form_values_and_field, field_in_training, order_ending_with

BATCH = 6
OBS = spaces.Box(-np.inf, np.inf, (5,), np.float32)
ACTION = spaces.Box(-1, 1, (3,), np.float32)


def forward_of_its_own(critic):
    base = type(critic)
    critic.__class__ = type("OwnForward", (base,), {"forward": lambda self, obs, actions: base.forward(self, obs, actions)})
    return critic


@pytest.fixture(params=["closed form", "autograd"])
def critic(request):
    th.manual_seed(0)
    critic = ContinuousCritic(OBS, ACTION, [8, 7], FlattenExtractor(OBS), 5, nn.SiLU)
    return critic if request.param == "closed form" else forward_of_its_own(critic)


@pytest.fixture
def points():
    th.manual_seed(1)
    obs, noisy, successor = th.randn(3, BATCH, 5)
    return obs, th.rand(BATCH, 3) * 2 - 1, noisy, successor, th.randint(0, 2, (BATCH, 3)) * 2.0 - 1


def field_at(critic, points, rows):
    obs, actions, *given = points
    noisy, successor, direction = (x if rows is None else x[rows] for x in given)
    order = None if rows is None else order_ending_with(rows, BATCH)
    return field_in_training(critic, FieldInputs(obs, actions, noisy, successor, direction, order))


def test_the_field_of_some_rows_is_those_rows_of_the_field(critic, points):
    rows = th.tensor([4, 1, 3])
    part, whole = field_at(critic, points, rows), field_at(critic, points, None)
    for name in ("grad", "grad_noisy", "grad_next", "curvature"):
        th.testing.assert_close(getattr(part, name), getattr(whole, name)[:, rows])


def test_the_values_are_those_of_the_whole_batch_in_its_order(points):
    th.manual_seed(0)
    critic = ContinuousCritic(OBS, ACTION, [8, 7], FlattenExtractor(OBS), 5, nn.SiLU)
    inputs = FieldInputs(
        *points[:2], *(point[:3] for point in points[2:]), order=order_ending_with(th.tensor([4, 1, 3]), BATCH)
    )
    values, _ = closed_form_values_and_field(critic, inputs)
    for ours, own in zip(values, critic(*points[:2]), strict=True):
        th.testing.assert_close(ours, own)


def test_the_mean_over_all_subsets_is_the_loss_of_the_batch(critic, points):
    parameters = list(critic.parameters())

    def gradient(rows):
        losses = pave_losses(field_at(critic, points, rows), 1.0)
        gradients = th.autograd.grad(sum(losses), parameters, allow_unused=True)
        return th.cat([th.zeros(p.numel()) if g is None else g.flatten() for p, g in zip(parameters, gradients, strict=True)])

    subsets = [gradient(th.tensor(rows)) for rows in combinations(range(BATCH), 2)]
    th.testing.assert_close(th.stack(subsets).mean(dim=0), gradient(None), rtol=1e-4, atol=1e-6)


class Pendulums(gym.ObservationWrapper):
    """Pendulum-v1 with a Dict observation."""

    def __init__(self):
        super().__init__(gym.make("Pendulum-v1"))
        self.observation_space = spaces.Dict(
            {"angle": spaces.Box(-1, 1, (2,), np.float32), "speed": spaces.Box(-8, 8, (1,), np.float32)}
        )

    def observation(self, observation):
        return {"angle": observation[:2], "speed": observation[2:]}


HAS_N_STEPS = "n_steps" in inspect.signature(TD3.__init__).parameters

RUNS = {
    "flat": ("MlpPolicy", "Pendulum-v1", {}),
    "dict": ("MultiInputPolicy", Pendulums(), {}),
    "n-step": ("MlpPolicy", "Pendulum-v1", {"n_steps": 3}),
    "memory-optimised": (
        "MlpPolicy",
        "Pendulum-v1",
        {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}},
    ),
    "hindsight": (
        "MultiInputPolicy",
        BitFlippingEnv(n_bits=3, continuous=True),
        {"replay_buffer_class": HerReplayBuffer, "learning_starts": 20, "mpr_coef": 0.0},
    ),
}


@pytest.mark.parametrize("run", [run for run in RUNS if run != "n-step" or HAS_N_STEPS])
@pytest.mark.parametrize("algorithm", [PAVE_TD3, PAVE_SAC])
def test_every_buffer_trains_on_a_part(algorithm, run):
    policy, env, kwargs = RUNS[run]
    settings = dict(learning_starts=10, batch_size=16, buffer_size=200, policy_kwargs={"net_arch": [8]}, seed=0)
    model = algorithm(policy, env, pave_batch_size=4, **{**settings, **kwargs})
    before = [parameter.clone() for parameter in model.critic.parameters()]
    model.learn(40)
    assert all(th.isfinite(parameter).all() for parameter in model.critic.parameters())
    assert any(not th.equal(old, new) for old, new in zip(before, model.critic.parameters(), strict=True))


def collected(**kwargs):
    """An agent with 4 steps an episode in its buffer, and not trained yet."""
    settings = dict(learning_starts=50, batch_size=16, buffer_size=40, policy_kwargs={"net_arch": [8]}, seed=0)
    return PAVE_SAC("MlpPolicy", CountingEnv(), pave_batch_size=8, **settings, **kwargs).learn(35)


def test_each_transition_of_a_part_has_its_own_successor_and_counts_if_that_is_one_step_away():
    model = collected(optimize_memory_usage=True, replay_buffer_kwargs={"handle_timeout_termination": False})
    replay_data, successor = model._sample(16)
    inputs, *_, has_successor = model._critic_terms(replay_data, successor, replay_data.rewards)
    follows = is_one_step(inputs.observations[inputs.rows], inputs.next_observations)
    assert th.equal(has_successor == 1, follows) and 0 < follows.sum() < 8


def test_the_part_is_drawn_from_the_whole_batch():
    model = collected()
    batch = model._sample(16)
    assert {row for _ in range(30) for row in model._field_inputs(*batch).rows.tolist()} == set(range(16))


def parameters_after(**kwargs):
    settings = dict(learning_starts=20, batch_size=16, buffer_size=100, policy_kwargs={"net_arch": [8]}, seed=0)
    model = PAVE_SAC("MlpPolicy", "Pendulum-v1", **settings, **kwargs).learn(30)
    return th.cat([parameter.detach().flatten() for parameter in model.policy.parameters()])


def test_as_many_as_the_batch_is_the_whole_batch():
    assert th.equal(parameters_after(pave_batch_size=16), parameters_after())
    assert not th.equal(parameters_after(pave_batch_size=8), parameters_after())


def test_without_terms_there_is_no_draw():
    zero = dict(mpr_coef=0, vfc_coef=0, curv_coef=0)
    assert th.equal(parameters_after(pave_batch_size=8, **zero), parameters_after(**zero))


@pytest.mark.parametrize("size", [0, -3, 2.5, "64", True])
def test_a_part_that_is_no_number_of_transitions_is_refused(size):
    with pytest.raises(ValueError, match="pave_batch_size must be a positive whole number of transitions"):
        PAVE_TD3("MlpPolicy", "Pendulum-v1", pave_batch_size=size)


def test_it_is_deprecated():
    with pytest.warns(FutureWarning, match="pave_batch_size is deprecated: pave_interval=4"):
        PAVE_TD3("MlpPolicy", "Pendulum-v1", pave_batch_size=64, buffer_size=10)


def test_it_is_saved_and_can_be_changed(tmp_path):
    PAVE_TD3("MlpPolicy", "Pendulum-v1", pave_batch_size=64, buffer_size=10).save(tmp_path / "agent")
    assert PAVE_TD3.load(tmp_path / "agent").pave_batch_size == 64
    assert PAVE_TD3.load(tmp_path / "agent", pave_batch_size=None).pave_batch_size is None
    with pytest.raises(ValueError, match="pave_batch_size"):
        PAVE_TD3.load(tmp_path / "agent", pave_batch_size=0)
