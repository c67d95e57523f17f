"""How much a field turns: of critics whose field is known, in expectation and number by number."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_pave.evaluation import field_turn, record_rollout, rollout_geometry
from sb3_pave.evaluation.rollout import Episode, Rollout
from tests.evaluation.test_geometry import BoxEnv, Quadratic, silu


def with_critic(network, state_dim, action_dim, low=-1.0, high=1.0):
    env = BoxEnv(spaces.Box(-1, 1, (state_dim,), np.float32), spaces.Box(low, high, (action_dim,), np.float32))
    model = TD3("MlpPolicy", env, device="cpu", policy_kwargs=silu(), buffer_size=10)
    model.critic.q_networks = [network, network]
    return model


def test_the_quadratic_critic_turns_by_the_square_of_its_bound():
    """∇_aQ = Bs - Ha and a = H⁻¹Bs + η ξ give σ²‖B‖_F² and E‖B(s' - s)‖² over η²‖H‖_F²."""
    rng = np.random.default_rng(0)
    root = rng.standard_normal((3, 3))
    H, B = root @ root.T + np.eye(3), 0.1 * rng.standard_normal((3, 4))
    model = with_critic(Quadratic(H, B), 4, 3)
    n = 20_000
    observations = 0.1 * rng.standard_normal((n, 4)).astype(np.float32)  # so that no explored action reaches a bound
    actions = observations @ np.linalg.solve(H, B).T
    assert np.abs(actions).max() < 0.4
    sigma, eta = 0.02, 0.1
    turn = field_turn(model, observations, actions, [n // 2, n // 2], noise=sigma, exploration=eta)
    size = eta**2 * np.linalg.norm(H) ** 2
    assert turn.noise_ratio == pytest.approx(sigma**2 * np.linalg.norm(B) ** 2 / size, rel=0.03)
    moves = np.delete(np.diff(observations, axis=0), n // 2 - 1, axis=0)
    np.testing.assert_allclose(turn.in_step, np.square(moves @ B.T).mean(axis=1), rtol=1e-2, atol=1e-6)
    assert turn.step_ratio == pytest.approx(np.square(moves @ B.T).sum(axis=1).mean() / size, rel=0.03)
    assert turn.size.mean() == pytest.approx(size / 3, rel=0.03)


def test_numbers_by_hand():
    """Q = -½·2a² + 3as: ∇_aQ = 3s - 2a, at a = 0.25 of half the range [-4, 4], without exploration; two episodes."""
    model = with_critic(Quadratic([[2.0]], [[3.0]]), 1, 1, low=-4.0, high=4.0)
    observations = np.array([[0.0], [0.5], [1.0], [0.2], [0.4]], np.float32)
    turn = field_turn(model, observations, np.ones((5, 1)), [3, 2], noise=0.1, exploration=0.0)
    np.testing.assert_allclose(turn.size, np.square([-0.5, 1.0, 2.5, 0.1, 0.7]), rtol=1e-4)
    np.testing.assert_allclose(turn.in_step, np.square([1.5, 1.5, 0.6]), rtol=1e-4)  # not from one episode to the other
    assert turn.step_ratio == pytest.approx((2.25 + 2.25 + 0.36) / 3 / (0.25 + 1 + 6.25 + 0.01 + 0.49) * 5, rel=1e-4)
    # The change is 3ε exactly: of one more noise, twice as much
    twice = field_turn(model, observations, np.ones((5, 1)), [3, 2], noise=0.2, exploration=0.0)
    np.testing.assert_allclose(twice.under_noise, 4 * turn.under_noise, rtol=1e-3)
    assert len(np.unique(turn.under_noise)) == 5


def test_explored_actions_stay_within_their_bounds():
    model = with_critic(Quadratic([[2.0]], [[0.0]]), 1, 1)
    turn = field_turn(model, np.zeros((500, 1), np.float32), np.ones((500, 1)), [500], exploration=0.5)
    assert np.sqrt(turn.size.max()) == pytest.approx(2.0)  # |∇_aQ| = 2|a|, and half of the actions are at the bound
    assert (turn.size == turn.size.max()).mean() == pytest.approx(0.5, abs=0.1)


def test_flat_critics_and_episodes_of_one_step_have_no_ratio():
    model = with_critic(Quadratic([[0.0]], [[0.0]]), 1, 1)
    assert np.isnan(field_turn(model, np.zeros((3, 1), np.float32), np.zeros((3, 1)), [3]).noise_ratio)
    model = with_critic(Quadratic([[2.0]], [[3.0]]), 1, 1)
    turn = field_turn(model, np.zeros((2, 1), np.float32), np.zeros((2, 1)), [1, 1])
    assert turn.in_step.size == 0 and np.isnan(turn.step_ratio) and turn.noise_ratio > 0


def test_chunks_do_not_show_and_every_agent_gets_the_same_noise(monkeypatch):
    model = SAC("MlpPolicy", "Pendulum-v1", policy_kwargs=silu(), seed=0, device="cpu")
    recorded = record_rollout(model, make_vec_env("Pendulum-v1"), 1, seed=0).episodes[0]
    model.policy.double()
    state = th.random.get_rng_state()
    whole = field_turn(model, recorded.observations, recorded.actions, [200])
    monkeypatch.setattr("sb3_pave.evaluation.turn._CHUNK_ENTRIES", 3 * 7)
    parts = field_turn(model, recorded.observations, recorded.actions, [200])
    assert th.equal(th.random.get_rng_state(), state)
    for name in ("size", "under_noise", "in_step"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-9)


def test_against_autograd_of_the_critic_itself():
    """The smallest of two SiLU critics, in float64, at the same draws."""
    model = SAC("MlpPolicy", "Pendulum-v1", policy_kwargs=silu(), seed=0, device="cpu")
    model.policy.double()
    rng = np.random.default_rng(1)
    observations, actions = rng.standard_normal((6, 3)).astype(np.float32), rng.uniform(-2, 2, (6, 1))
    turn = field_turn(model, observations, actions, [6], critic="min", seed=4)
    explored = np.clip(actions / 2 + 0.1 * np.random.default_rng([4, 0]).standard_normal((6, 1)), -1, 1)
    noisy = observations + 0.01 * np.random.default_rng([4, 1]).standard_normal((6, 3))

    def gradient(state, action):
        def value(a):
            inputs = th.cat([th.as_tensor(state, dtype=th.float64), a])[None]
            return min(network(inputs).squeeze() for network in model.critic.q_networks)

        return th.autograd.functional.jacobian(value, th.as_tensor(action)).item()

    for i in range(6):
        here = gradient(observations[i], explored[i])
        assert turn.size[i] == pytest.approx(here**2, rel=1e-9)
        assert turn.under_noise[i] == pytest.approx((gradient(noisy[i], explored[i]) - here) ** 2, rel=1e-8)
        if i < 5:
            assert turn.in_step[i] == pytest.approx((gradient(observations[i + 1], explored[i]) - here) ** 2, rel=1e-8)


def test_categories_get_no_noise():
    space = spaces.Dict(kind=spaces.Discrete(3), position=spaces.Box(-1, 1, (2,), np.float32))
    model = SAC("MultiInputPolicy", BoxEnv(space), policy_kwargs=silu(), seed=0, device="cpu", buffer_size=10)
    recorded = record_rollout(model, make_vec_env(lambda: BoxEnv(space)), 1, seed=0)
    first = model.critic.qf0[0]
    assert rollout_geometry(model, recorded).summary()["field_turn_noise"] > 0
    first.weight.data[:, 3:5] = 0.0  # of the position; the one-hot category comes first
    summary = rollout_geometry(model, recorded).summary()
    assert summary["field_turn_noise"] == 0.0 and summary["field_turn_step"] > 0


def test_each_entry_of_a_dict_gets_noise_of_its_own():
    space = spaces.Dict({key: spaces.Box(-1, 1, (2,), np.float32) for key in "ab"})
    model = SAC("MultiInputPolicy", BoxEnv(space), policy_kwargs=silu(), seed=0, device="cpu", buffer_size=10)
    first = model.critic.qf0[0]
    first.weight.data[:, 2:4] = -first.weight.data[:, :2]  # it sees a - b, from which the same noise would vanish
    observations = {key: np.zeros((5, 2), np.float32) for key in "ab"}
    assert field_turn(model, observations, np.zeros((5, 2)), [5]).noise_ratio > 1e-6


class Flat(FlattenExtractor):
    """Of an image or of a dict with nothing else."""

    def forward(self, observations):
        return super().forward(observations["camera"] if isinstance(observations, dict) else observations)


@pytest.mark.parametrize("as_dict", [False, True])
def test_images_get_the_same_noise_whoever_divides_them(as_dict):
    """MPR's σ counts on [0, 1] where the user's extractor divides images by 255, not the policy, as well."""
    space, images = spaces.Box(0, 255, (1, 2, 2), np.uint8), np.arange(0, 240, 12, np.uint8).reshape(5, 1, 2, 2)
    env, observations = (BoxEnv(spaces.Dict(camera=space)), {"camera": images}) if as_dict else (BoxEnv(space), images)
    turns = []
    for by_policy, factor in ((True, 1.0), (False, 255.0)):
        kwargs = silu(normalize_images=by_policy, features_extractor_class=Flat)
        model = TD3("MultiInputPolicy" if as_dict else "MlpPolicy", env, device="cpu", policy_kwargs=kwargs, buffer_size=10)
        model.critic.q_networks = [Quadratic(np.eye(2), np.full((2, 4), 1.0 / factor))]
        turns.append(field_turn(model, observations, np.zeros((5, 2)), [5], noise=0.1))
    for name in ("size", "under_noise", "in_step"):
        np.testing.assert_allclose(*(getattr(turn, name) for turn in turns), rtol=1e-3)
    assert turns[0].noise_ratio > 0


def test_the_geometry_of_a_rollout_reports_it_beside_the_bound():
    rng = np.random.default_rng(0)
    H, B = np.diag([1.0, 3.0]), np.array([[0.4, 0.0], [0.0, 0.3]])
    model = with_critic(Quadratic(H, B), 2, 2)
    model.actor.mu = nn.Linear(2, 2, bias=False)
    model.actor.mu.weight.data = th.as_tensor(np.linalg.solve(H, B), dtype=th.float32)
    observations = rng.uniform(-1, 1, (4000, 2)).astype(np.float32)
    actions = observations @ np.linalg.solve(H, B).T.astype(np.float32)
    episode = Episode(observations, actions, np.zeros(4000), 0.0, 4000)
    summary = rollout_geometry(model, Rollout([episode], model.action_space, True, 0)).summary()
    # The documented σ = 0.01 and η = 0.1
    assert summary["field_turn_noise"] == pytest.approx(0.01**2 * 0.25 / (0.1**2 * 10.0), rel=0.05)
    assert summary["bound_median"] == pytest.approx(0.4, rel=1e-3)
    # Of stochastic episodes, too, exploration is added to what the policy would have done
    wild = Episode(observations, np.clip(actions + 0.3, -1, 1), np.zeros(4000), 0.0, 4000)
    explored = rollout_geometry(model, Rollout([wild], model.action_space, False, 0)).summary()
    assert explored["field_turn_noise"] == pytest.approx(summary["field_turn_noise"], rel=1e-3)


def test_bad_input_is_refused():
    model = with_critic(Quadratic([[2.0]], [[3.0]]), 1, 1)
    inputs = np.zeros((2, 1), np.float32), np.zeros((2, 1)), [2]
    with pytest.raises(ValueError, match="choose 0 to 1"):
        field_turn(model, *inputs, critic=2)
    with pytest.raises(ValueError, match="PPO has no critic"):
        field_turn(PPO("MlpPolicy", "Pendulum-v1", n_steps=8, batch_size=8, device="cpu"), *inputs)
