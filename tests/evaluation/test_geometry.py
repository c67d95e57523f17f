"""The geometry against closed forms, against PyTorch's own Hessian, and against derivatives taken by hand."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import DDPG, PPO, SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_pave.evaluation.actor_jacobian import actor_jacobian_norm
from sb3_pave.evaluation.geometry import CriticGeometry, critic_geometry
from sb3_pave.evaluation.networks import critic_values, preprocess
from sb3_pave.evaluation.rollout import record_rollout
from sb3_pave.evaluation.rollout_geometry import RolloutGeometry, consecutive_cosine, rollout_geometry
from sb3_pave.evaluation.tables import GEOMETRY_MEASURES
from sb3_pave.evaluation.turn import FieldTurn, field_turn


def silu(**more):
    """Policy arguments, anew each time: SB3 writes into them."""
    return {"net_arch": [16, 16], "activation_fn": nn.SiLU, **more}


class BoxEnv(gym.Env):
    """Random observations of a given space."""

    def __init__(self, observation_space, action_space=None):
        self.observation_space = observation_space
        self.action_space = action_space or spaces.Box(-1, 1, (2,), np.float32)
        self.steps = 0

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        return self.observation_space.sample(), -float(np.square(action).sum()), False, self.steps == 10, {}


class Quadratic(nn.Module):
    """Q(s, a) = -½ aᵀHa + aᵀBs + b, on the concatenation [s, a]."""

    def __init__(self, H, B, b=0.0):
        super().__init__()
        self.H, self.B = (nn.Parameter(th.as_tensor(matrix, dtype=th.float32)) for matrix in (H, B))
        self.b = b

    def forward(self, x):
        s, a = x[:, : self.B.shape[1]], x[:, self.B.shape[1] :]
        return (-0.5 * (a @ self.H * a).sum(1) + (a @ self.B * s).sum(1) + self.b)[:, None]


def random_inputs(model, n=20, seed=0):
    """Observations and actions, drawn from the model's spaces."""
    model.observation_space.seed(seed)
    model.action_space.seed(seed)
    samples = [model.observation_space.sample() for _ in range(n)]
    actions = np.array([model.action_space.sample() for _ in range(n)])
    if isinstance(samples[0], dict):
        return {key: np.array([sample[key] for sample in samples]) for key in samples[0]}, actions
    return np.array(samples), actions


@pytest.fixture
def quadratic():
    """A TD3 whose critic is quadratic and whose actor is its exact maximiser, with H, B."""
    rng = np.random.default_rng(0)
    root = rng.standard_normal((3, 3))
    H, B = root @ root.T + 0.5 * np.eye(3), 0.1 * rng.standard_normal((3, 5))
    env = BoxEnv(spaces.Box(-1, 1, (5,), np.float32), spaces.Box(-1, 1, (3,), np.float32))
    model = TD3("MlpPolicy", env, device="cpu", policy_kwargs=silu())
    model.critic.q_networks = [Quadratic(H, B), Quadratic(2 * H, B, b=-100.0)]
    model.actor.mu = nn.Linear(5, 3, bias=False)
    model.actor.mu.weight.data = th.as_tensor(np.linalg.solve(H, B), dtype=th.float32)
    return model, H, B


def test_the_quadratic_critic_is_known_in_closed_form(quadratic):
    model, H, B = quadratic
    observations, actions = random_inputs(model)
    geometry = critic_geometry(model, observations, actions)
    np.testing.assert_allclose(geometry.gradient, observations @ B.T - actions @ H, atol=1e-5)
    np.testing.assert_allclose(geometry.mixed_norm, np.linalg.norm(B, 2), rtol=1e-5)
    np.testing.assert_allclose(geometry.eigenvalues, np.tile(-np.linalg.eigvalsh(H)[::-1], (20, 1)), rtol=1e-4)
    np.testing.assert_allclose(geometry.trace, -np.trace(H), rtol=1e-5)
    np.testing.assert_allclose(geometry.mu, np.linalg.eigvalsh(H)[0], rtol=1e-4)
    assert geometry.negative_definite.all()


def test_the_lipschitz_constant_of_the_maximiser_is_within_the_bound(quadratic):
    """∇_s a* = H⁻¹B, and ||H⁻¹B|| <= M / μ."""
    model, H, B = quadratic
    observations, actions = random_inputs(model)
    jacobian = actor_jacobian_norm(model, observations)
    np.testing.assert_allclose(jacobian, np.linalg.norm(np.linalg.solve(H, B), 2), rtol=1e-4)
    bound = critic_geometry(model, observations, actions).lipschitz_bound
    np.testing.assert_allclose(bound, np.linalg.norm(B, 2) / np.linalg.eigvalsh(H)[0], rtol=1e-4)
    assert (jacobian <= bound).all()


def test_a_saddle_has_no_bound(quadratic):
    model, _, B = quadratic
    model.critic.q_networks = [Quadratic(np.diag([1.0, 2.0, -3.0]), B)]
    geometry = critic_geometry(model, *random_inputs(model))
    assert not geometry.negative_definite.any()
    np.testing.assert_allclose(geometry.eigenvalues, np.tile([-2.0, -1.0, 3.0], (20, 1)), rtol=1e-5)
    assert np.isnan(geometry.mu).all() and np.isnan(geometry.lipschitz_bound).all()


def test_any_critic_or_the_smallest(quadratic):
    model, H, _ = quadratic
    inputs = random_inputs(model)
    for choice in (1, "min"):  # the second critic is a hundred lower everywhere
        np.testing.assert_allclose(critic_geometry(model, *inputs, critic=choice).trace, -2 * np.trace(H), rtol=1e-5)
    # With equal offsets the smaller one changes from state to state
    model.critic.q_networks[1].b = 0.0
    observations, actions = inputs
    values = critic_values(model.critic, preprocess(model.policy, observations), th.as_tensor(actions))
    assert values.shape == (2, 20)
    expected = np.where(values[0].detach() < values[1].detach(), -np.trace(H), -2 * np.trace(H))
    np.testing.assert_allclose(critic_geometry(model, *inputs, critic="min").trace, expected, rtol=1e-5)


@pytest.mark.parametrize("choice", [2, -1, "mean"])
def test_an_unknown_critic_is_refused(quadratic, choice):
    with pytest.raises(ValueError, match="choose 0 to 1"):
        critic_geometry(quadratic[0], *random_inputs(quadratic[0]), critic=choice)


@pytest.mark.parametrize("algorithm", [SAC, TD3])
def test_a_trained_mlp_against_the_hessian_of_pytorch_in_float64(algorithm):
    env = BoxEnv(spaces.Box(-1, 1, (7,), np.float32), spaces.Box(-1, 1, (3,), np.float32))
    model = algorithm("MlpPolicy", env, policy_kwargs=silu(), learning_starts=20, seed=0, device="cpu", batch_size=32)
    model.learn(120)
    observations = model.replay_buffer.observations[:25, 0].astype(np.float32)
    actions = model.replay_buffer.actions[:25, 0]
    model.policy.double()
    geometry = critic_geometry(model, observations, actions, critic=1)

    n_states = observations.shape[1]
    for i in range(25):
        point = th.as_tensor(np.concatenate([observations[i], actions[i]]), dtype=th.float64)

        def value(x):
            return model.critic.qf1(x[None])[0, 0]

        hessian = th.autograd.functional.hessian(value, point).numpy()
        gradient = th.autograd.functional.jacobian(value, point).numpy()
        mixed, curvature = hessian[n_states:, :n_states], hessian[n_states:, n_states:]
        np.testing.assert_allclose(geometry.gradient[i], gradient[n_states:], rtol=1e-9)
        np.testing.assert_allclose(geometry.mixed_norm[i], np.linalg.norm(mixed, 2), rtol=1e-9)
        np.testing.assert_allclose(geometry.eigenvalues[i], np.linalg.eigvalsh(curvature), rtol=1e-9, atol=1e-12)

    def action(observation):
        output = model.actor.latent_pi(observation) if algorithm is SAC else observation
        return th.tanh(model.actor.mu(output)) if algorithm is SAC else model.actor.mu(output)

    states = th.as_tensor(observations, dtype=th.float64)
    jacobians = [th.autograd.functional.jacobian(action, state).numpy() for state in states]
    np.testing.assert_allclose(actor_jacobian_norm(model, observations), [np.linalg.norm(j, 2) for j in jacobians], rtol=1e-9)


def test_pendulum_is_measured_on_the_scale_of_training():
    """Its bounds are ±2, its critic was trained on ±1. Finite differences of the critic itself, at half the torque."""
    model = SAC("MlpPolicy", "Pendulum-v1", policy_kwargs=silu(), seed=0, device="cpu")
    recorded = record_rollout(model, make_vec_env("Pendulum-v1"), 1, seed=0)
    (episode,) = recorded.episodes
    geometry = rollout_geometry(model, recorded)
    model.policy.double()
    step = 1e-3

    def value(observation, action):
        inputs = th.as_tensor(np.concatenate([observation, action / 2.0]), dtype=th.float64)
        return model.critic.qf0(inputs[None]).item()

    def torque(observation):
        inputs = th.as_tensor(observation, dtype=th.float64)[None]
        return th.tanh(model.actor.mu(model.actor.latent_pi(inputs))).item()

    for t in (0, 57, 199):
        s, a = episode.observations[t].astype(np.float64), episode.actions[t].astype(np.float64)
        da = np.array([2.0 * step])  # a step of the scaled action
        gradient = (value(s, a + da) - value(s, a - da)) / (2 * step)
        curvature = (value(s, a + da) - 2 * value(s, a) + value(s, a - da)) / step**2
        mixed, slope = np.zeros(3), np.zeros(3)
        for j in range(3):
            ds = step * np.eye(3)[j]
            ahead, behind = (value(s + sign * ds, a + da) - value(s + sign * ds, a - da) for sign in (1, -1))
            mixed[j] = (ahead - behind) / (4 * step**2)
            slope[j] = (torque(s + ds) - torque(s - ds)) / (2 * step)
        assert geometry.critic.gradient[t, 0] == pytest.approx(gradient, rel=1e-3)
        assert geometry.critic.eigenvalues[t, 0] == pytest.approx(curvature, rel=1e-3, abs=1e-6)
        assert geometry.critic.mixed_norm[t] == pytest.approx(np.linalg.norm(mixed), rel=1e-3)
        assert geometry.actor_jacobian_norm[t] == pytest.approx(np.linalg.norm(slope), rel=1e-3)


def test_a_vecnormalize_agent_is_measured_at_normalised_observations():
    env = VecNormalize(make_vec_env("Pendulum-v1"), training=False)
    env.obs_rms.mean, env.obs_rms.var = np.array([0.5, -0.5, 2.0]), np.array([4.0, 9.0, 16.0])
    model = TD3("MlpPolicy", env, policy_kwargs=silu(), seed=0, device="cpu")
    geometry = rollout_geometry(model, record_rollout(model, env, 1, seed=0)).critic
    # The first state, from an environment without wrappers
    raw, _ = gym.make("Pendulum-v1").reset(seed=0)
    normalised = (raw - env.obs_rms.mean) / np.sqrt(env.obs_rms.var + env.epsilon)
    state = th.as_tensor(normalised, dtype=th.float32)
    action = model.actor.mu(state).detach()
    hessian = th.autograd.functional.hessian(lambda x: model.critic.qf0(x[None])[0, 0], th.cat([state, action]))
    assert geometry.mixed_norm[0] == pytest.approx(float(hessian[3, :3].norm()), rel=1e-3)
    assert geometry.eigenvalues[0, 0] == pytest.approx(float(hessian[3, 3]), rel=1e-3)


def test_states_do_not_mix_and_chunks_do_not_show(monkeypatch):
    model = SAC("MlpPolicy", "Pendulum-v1", policy_kwargs=silu(), seed=0, device="cpu")
    inputs = random_inputs(model)
    whole, actor = critic_geometry(model, *inputs), actor_jacobian_norm(model, inputs[0])
    monkeypatch.setattr("sb3_pave.evaluation.derivatives.CHUNK_SIZE", 3)
    np.testing.assert_allclose(critic_geometry(model, *inputs).mixed_norm, whole.mixed_norm, rtol=1e-4)
    np.testing.assert_allclose(actor_jacobian_norm(model, inputs[0]), actor, rtol=1e-4)


def test_tqc_is_measured_at_the_mean_of_its_quantiles():
    contrib = pytest.importorskip("sb3_contrib")
    model = contrib.TQC("MlpPolicy", "Pendulum-v1", policy_kwargs=silu(), seed=0, device="cpu")
    observations, actions = random_inputs(model)
    geometry = critic_geometry(model, observations, actions, critic=1)
    point = th.as_tensor(np.concatenate([observations[4], actions[4] / 2]), dtype=th.float32)
    hessian = th.autograd.functional.hessian(lambda x: model.critic.qf1(x[None]).mean(), point)
    assert geometry.mixed_norm[4] == pytest.approx(float(hessian[3, :3].norm()), rel=1e-3)
    assert actor_jacobian_norm(model, observations).shape == (20,)


def test_crossq_is_measured_in_evaluation_mode_and_left_in_its_own():
    contrib = pytest.importorskip("sb3_contrib")
    model = contrib.CrossQ("MlpPolicy", "Pendulum-v1", policy_kwargs=silu(), seed=0, device="cpu", learning_starts=10)
    model.learn(30)
    model.policy.set_training_mode(True)
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    observations, actions = random_inputs(model)
    geometry = critic_geometry(model, observations, actions)
    alone = critic_geometry(model, observations[3:4], actions[3:4])
    np.testing.assert_allclose(geometry.mixed_norm[3], alone.mixed_norm[0], rtol=1e-4)
    actor_jacobian_norm(model, observations)
    assert model.critic.training and all(th.equal(before[name], value) for name, value in model.policy.state_dict().items())


def test_dict_observations_are_differentiated_in_their_continuous_entries():
    space = spaces.Dict(
        kind=spaces.Discrete(3), position=spaces.Box(-1, 1, (2,), np.float32), speed=spaces.Box(-1, 1, (1,), np.float32)
    )
    model = SAC("MultiInputPolicy", BoxEnv(space), policy_kwargs=silu(), seed=0, device="cpu", buffer_size=10)
    observations, actions = random_inputs(model)
    geometry = critic_geometry(model, observations, actions)
    one_hot = np.eye(3, dtype=np.float32)[observations["kind"][7]]
    point = np.concatenate([one_hot, observations["position"][7], observations["speed"][7], actions[7]])
    value = lambda x: model.critic.qf0(x[None])[0, 0]  # noqa: E731
    hessian = th.autograd.functional.hessian(value, th.as_tensor(point, dtype=th.float32))
    assert geometry.mixed_norm[7] == pytest.approx(float(th.linalg.matrix_norm(hessian[6:, 3:6], ord=2)), rel=1e-3)
    assert actor_jacobian_norm(model, observations).shape == (20,)


class LeavesOut(BaseFeaturesExtractor):
    """Achieved goals are in the observation already, as in most environments with goals."""

    def __init__(self, observation_space):
        super().__init__(observation_space, 4)

    def forward(self, observations):
        return th.cat([observations["observation"], observations["desired_goal"]], dim=1)


@pytest.mark.parametrize("n_actions", [1, 2, 3])
def test_what_a_features_extractor_leaves_out_has_derivatives_of_zero(n_actions):
    entry = spaces.Box(-1, 1, (2,), np.float32)
    space = spaces.Dict(observation=entry, achieved_goal=entry, desired_goal=entry)
    env = BoxEnv(space, spaces.Box(-1, 1, (n_actions,), np.float32))
    kwargs = silu(features_extractor_class=LeavesOut)
    model = SAC("MultiInputPolicy", env, policy_kwargs=kwargs, seed=0, device="cpu", buffer_size=10)
    observations, actions = random_inputs(model)
    geometry = critic_geometry(model, observations, actions)
    point = np.concatenate([observations["observation"][7], observations["desired_goal"][7], actions[7]])
    value = lambda x: model.critic.qf0(x[None])[0, 0]  # noqa: E731
    hessian = th.autograd.functional.hessian(value, th.as_tensor(point, dtype=th.float32))
    assert geometry.mixed_norm[7] == pytest.approx(float(th.linalg.matrix_norm(hessian[4:, :4], ord=2)), rel=1e-3)
    state = lambda x: th.tanh(model.actor.mu(model.actor.latent_pi(x[None])))[0]  # noqa: E731
    jacobian = th.autograd.functional.jacobian(state, th.as_tensor(point[:4]))
    expected = float(th.linalg.matrix_norm(jacobian, ord=2))
    assert actor_jacobian_norm(model, observations)[7] == pytest.approx(expected, rel=1e-3)


def test_images_are_differentiated_through_a_shared_extractor_on_the_unit_scale():
    space = spaces.Box(0, 255, (3, 36, 36), np.uint8)
    kwargs = silu(share_features_extractor=True, features_extractor_kwargs={"features_dim": 8})
    model = SAC("CnnPolicy", BoxEnv(space), policy_kwargs=kwargs, seed=0, device="cpu", buffer_size=10)
    observations, actions = random_inputs(model, n=3)
    geometry = critic_geometry(model, observations, actions)
    image, action = th.as_tensor(observations[:1]).float() / 255.0, th.as_tensor(actions[:1])

    def gradient(x):
        leaf = action.clone().requires_grad_()
        value = model.critic.qf0(th.cat([model.critic.features_extractor(x), leaf], dim=1)).sum()
        return th.autograd.grad(value, leaf, create_graph=True)[0][0]

    mixed = th.autograd.functional.jacobian(gradient, image).reshape(2, -1)
    assert geometry.mixed_norm[0] > 0
    assert geometry.mixed_norm[0] == pytest.approx(float(th.linalg.matrix_norm(mixed, ord=2)), rel=1e-3)
    assert actor_jacobian_norm(model, observations).shape == (3,)


def test_ppo_has_an_actor_only():
    model = PPO("MlpPolicy", "Pendulum-v1", n_steps=8, batch_size=8, seed=0, device="cpu")
    geometry = rollout_geometry(model, record_rollout(model, make_vec_env("Pendulum-v1"), 1, seed=0))
    assert geometry.critic is None
    assert set(geometry.summary()) == {"actor_jacobian_mean", "actor_jacobian_sup", "at_bound_rate"}
    # Scaled by hand: the network's output is a torque within ±2
    state = th.zeros(3)
    jacobian = th.autograd.functional.jacobian(lambda s: model.policy.get_distribution(s[None]).mode()[0] / 2, state)
    measured = actor_jacobian_norm(model, np.zeros((1, 3), np.float32))
    assert measured[0] == pytest.approx(float(jacobian.norm()), rel=1e-4)
    with pytest.raises(ValueError, match="PPO has no critic"):
        critic_geometry(model, np.zeros((1, 3)), np.zeros((1, 1)))


@pytest.mark.parametrize("sizes", [(3, 1), (3, 2), (5, 3)], ids="{0[0]} observations, {0[1]} actions".format)
def test_a_relu_critic_is_pointed_out(sizes):
    observed, acted = (spaces.Box(-1, 1, (size,), np.float32) for size in sizes)
    model = DDPG("MlpPolicy", BoxEnv(observed, acted), policy_kwargs={"net_arch": []}, seed=0, device="cpu", buffer_size=10)
    with pytest.warns(UserWarning, match="second derivatives are 0"):
        geometry = critic_geometry(model, *random_inputs(model))
    assert not geometry.negative_definite.any() and not geometry.mixed_norm.any()


@pytest.mark.parametrize(("H", "B"), [([[2.0]], [[0.0]]), ([[0.0]], [[3.0]])], ids=["no coupling", "no curvature"])
def test_a_critic_with_some_second_derivatives_is_not_called_linear(H, B):
    box = spaces.Box(-1, 1, (1,), np.float32)
    model = TD3("MlpPolicy", BoxEnv(box, box), device="cpu", policy_kwargs=silu(), buffer_size=10)
    model.critic.q_networks = [Quadratic(H, B)]
    geometry = critic_geometry(model, *random_inputs(model))  # no warning
    assert (geometry.eigenvalues[0, 0], geometry.mixed_norm[0]) == (-H[0][0], B[0][0])


def test_a_critic_that_fails_does_not_cost_the_actors_part():
    model = SAC("MlpPolicy", "Pendulum-v1", policy_kwargs=silu(), seed=0, device="cpu", buffer_size=10)
    recorded = record_rollout(model, make_vec_env("Pendulum-v1"), 1, seed=0)
    model.critic.q_networks = [lambda inputs: inputs["state"]]
    geometry = rollout_geometry(model, recorded)
    assert geometry.critic is None and geometry.turn is None and len(geometry.actor_jacobian_norm) == 200
    (note,) = geometry.notes
    assert note.startswith("no geometry of its critic: ")


def test_no_action_is_at_a_bound_where_one_has_no_range():
    env = BoxEnv(spaces.Box(-1, 1, (2,), np.float32), spaces.Box(np.float32([-1, 0]), np.float32([1, 0])))
    model = PPO("MlpPolicy", env, n_steps=8, batch_size=8, seed=0, device="cpu")
    assert rollout_geometry(model, record_rollout(model, make_vec_env(lambda: env), 1)).summary()["at_bound_rate"] == 0.0


def test_a_critic_of_its_own_making_is_refused():
    model = SAC("MlpPolicy", "Pendulum-v1", policy_kwargs=silu(), seed=0, device="cpu")
    forward = model.critic.forward
    model.critic.forward = lambda observations, actions: tuple(2 * value + 1 for value in forward(observations, actions))
    with pytest.raises(ValueError, match="overrides its forward pass"):
        critic_geometry(model, *random_inputs(model))


def test_cosines_stay_within_an_episode():
    # Two episodes: east, north, north-west | west, west
    gradient = np.array([[2.0, 0.0], [0.0, 1.0], [-1.0, 1.0], [-3.0, 0.0], [-1.0, 0.0]])
    np.testing.assert_allclose(consecutive_cosine(gradient, [3, 2]), [0.0, np.sqrt(0.5), 1.0])
    np.testing.assert_allclose(consecutive_cosine(np.array([[1.0], [-2.0], [0.0]]), [3]), [-1.0, 0.0])


def test_the_summary_counts_what_it_says(quadratic):
    """A policy at its bounds half of the time: the bound is not defined there."""
    model, H, B = quadratic
    env = make_vec_env(lambda: BoxEnv(spaces.Box(-1, 1, (5,), np.float32), spaces.Box(-1, 1, (3,), np.float32)))
    recorded = record_rollout(model, env, 2, seed=0)
    recorded.episodes[0].actions[:, 1] = 1.0
    summary = rollout_geometry(model, recorded).summary()
    assert summary["at_bound_rate"] == summary["bound_defined_rate"] == 0.5
    assert summary["negative_definite_rate"] == 1.0
    assert summary["M_mean"] == pytest.approx(np.linalg.norm(B, 2), rel=1e-4)
    assert summary["bound_median"] == pytest.approx(np.linalg.norm(B, 2) / np.linalg.eigvalsh(H)[0], rel=1e-3)
    assert summary["actor_jacobian_median_where_bound"] <= summary["bound_median"]


def test_each_number_of_a_summary_by_hand():
    """Five states: concave, concave, concave, concave with the action at a bound, not concave."""
    eigenvalues = np.array([[-4.0, -1.0], [-3.0, -2.0], [-9.0, -4.0], [-6.0, -5.0], [-2.0, 1.0]])
    critic = CriticGeometry(np.zeros((5, 2)), np.array([2.0, 6.0, 40.0, 5.0, 7.0]), eigenvalues)
    turn = FieldTurn(np.full(5, 4.0), np.full(5, 2.0), np.full(4, 3.0))
    jacobian, at_bound = np.array([0.5, 1.0, 6.0, 2.0, 8.0]), np.array([False, False, False, True, False])
    geometry = RolloutGeometry(critic, jacobian, at_bound, np.array([0.5, -0.5, 0.6, 0.0]), turn)
    assert geometry.summary() == {
        "M_mean": 12.0,
        "M_sup": 40.0,
        "trace_mean": pytest.approx((-5 - 5 - 13 - 11 - 1) / 5),
        "lambda_max_mean": pytest.approx((-1 - 2 - 4 - 5 + 1) / 5),
        "mu_mean": 3.0,
        "negative_definite_rate": 0.8,
        "bound_median": 3.0,  # of 2, 3 and 10
        "bound_defined_rate": 0.6,
        "field_turn_noise": 0.5,
        "field_turn_step": 0.75,
        "actor_jacobian_median_where_bound": 1.0,
        "cosine_mean": pytest.approx(0.15),
        "flip_rate": 0.25,  # a gradient that vanishes has not flipped
        "actor_jacobian_mean": 3.5,
        "actor_jacobian_sup": 8.0,
        "at_bound_rate": 0.2,
    }
    assert set(geometry.summary()) == set(GEOMETRY_MEASURES)  # each has its row in a table


def test_the_geometry_of_a_rollout_is_that_of_the_critic_that_was_asked_for(quadratic):
    model, _, _ = quadratic
    env = make_vec_env(lambda: BoxEnv(spaces.Box(-1, 1, (5,), np.float32), spaces.Box(-1, 1, (3,), np.float32)))
    recorded = record_rollout(model, env, 1, seed=0)
    (episode,) = recorded.episodes
    inputs = episode.observations, episode.actions
    for critic in (0, 1):
        geometry, turn = rollout_geometry(model, recorded, critic), field_turn(model, *inputs, [10], critic)
        np.testing.assert_array_equal(geometry.critic.trace, critic_geometry(model, *inputs, critic).trace)
        np.testing.assert_array_equal(geometry.turn.in_step, turn.in_step)
        np.testing.assert_array_equal(geometry.turn.size, turn.size)


def test_a_rollout_without_observations_is_refused(quadratic):
    model, _, _ = quadratic
    env = make_vec_env(lambda: BoxEnv(spaces.Box(-1, 1, (5,), np.float32), spaces.Box(-1, 1, (3,), np.float32)))
    with pytest.raises(ValueError, match="keep_observations"):
        rollout_geometry(model, record_rollout(model, env, 1, keep_observations=False))
