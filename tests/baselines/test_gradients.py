"""What reaches the actor's optimizer is the gradient of the definition, at the batch and its neighbours in the episode."""

import copy

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
from torch import nn

from sb3_pave import PAVE_SAC, PAVE_TD3
from sb3_pave.baselines import asap, caps, damper, grad, temporal
from tests.algorithms.environments import CountingEnv
from tests.algorithms.scenarios import HAS_N_STEPS, logged_by_calls
from tests.baselines.agents import ActorSteps, small


class ShortEpisodes(CountingEnv):
    """Observes episode and step on a scale of about one, and ends by termination."""

    def __init__(self):
        super().__init__(episode_length=4, terminates=True)
        self.observation_space = spaces.Box(-10, 10, (2,), np.float32)

    def _observe(self):
        return np.array([0.1 * self.episode, 0.5 * self.steps - 1], np.float32)


class LastBatchOf:
    """The observations that the agent's buffer gave last, and where its episodes are."""

    def __init__(self, model):
        buffer, sample = model.replay_buffer, model.replay_buffer.sample

        def remember(*args, **kwargs):
            batch = sample(*args, **kwargs)
            self.states = batch.observations.double()
            return batch

        buffer.sample = remember

    def neighbours(self):
        """``s'``, ``s_{t-1}``, whether ``s'`` is not terminal, and whether there is an ``s_{t-1}``, by the environment."""
        step = th.tensor([0, 0.5], dtype=th.float64)
        number = (self.states[:, 1] + 1) * 2
        return self.states + step, self.states - step, number < 2.5, number > 0.5


def double_actor(model):
    """The deterministic actor in float64, from its layers."""
    actor = copy.deepcopy(model.policy).actor.double()
    if hasattr(actor, "latent_pi"):
        return actor, nn.Sequential(actor.latent_pi, actor.mu, nn.Tanh())
    return actor, actor.mu


def slope(function, parameters, direction):
    """Of the function along a direction in the parameters, by central differences."""
    values = []
    for step in (1e-5, -1e-5):
        with th.no_grad():
            for parameter, move in zip(parameters, direction, strict=True):
                parameter.add_(move, alpha=step)
            values.append(function().item())
            for parameter, move in zip(parameters, direction, strict=True):
                parameter.sub_(move, alpha=step)
    return (values[0] - values[1]) / 2e-5


def check_slopes(added, loss, actor):
    parameters = list(actor.parameters())
    generator = th.Generator().manual_seed(1)
    assert added.norm() > 1e-4
    for _ in range(4):
        direction = [th.randn(p.shape, dtype=th.float64, generator=generator) for p in parameters]
        expected = slope(loss, parameters, direction)
        ours = (added * th.cat([move.flatten() for move in direction])).sum().item()
        assert ours == pytest.approx(expected, rel=2e-3, abs=2e-5 * added.norm().item())


def one_step(algorithm, **kwargs):
    """An agent after one update of its actor, its actor before that, the gradients and the batch."""
    policy_kwargs = {"net_arch": [16, 8], "activation_fn": nn.SiLU}
    settings = {"policy_kwargs": policy_kwargs, "learning_starts": 50, "batch_size": 64, **kwargs}
    model = small(algorithm, make_vec_env(ShortEpisodes, 2), **settings)
    model.learn(50)
    if isinstance(model, TD3):
        model.policy_delay = 1
    before = double_actor(model)
    steps, batch = ActorSteps(model), LastBatchOf(model)
    model.train(1, 64)
    return model, *before, steps, batch


PLAIN = [TD3, SAC]
BOTH = [TD3, SAC, PAVE_TD3, PAVE_SAC]
N_STEPS = [{}, {"n_steps": 3}] if HAS_N_STEPS else [{}]


@pytest.mark.parametrize("kwargs", N_STEPS, ids=str)
@pytest.mark.parametrize("host", BOTH)
def test_temporal(host, kwargs):
    model, actor, policy, steps, batch = one_step(temporal(host), temporal_coef=3.0, **kwargs)
    nexts, _, goes_on, _ = batch.neighbours()
    assert 0 < goes_on.sum() < len(goes_on)

    def loss():
        change = policy(nexts) - policy(batch.states)
        return 3.0 * change[goes_on].square().sum(dim=1).mean()

    check_slopes(steps.added(), loss, actor)
    assert model.logger.name_to_value["train/temporal_loss"] == pytest.approx(loss().item() / 3, rel=1e-4)


@pytest.mark.parametrize("host", BOTH)
def test_caps_along_transitions(host):
    _, actor, policy, steps, batch = one_step(caps(host), temporal_coef=3.0, spatial_coef=0)
    nexts = batch.neighbours()[0]

    def loss():
        return 3.0 * 0.5 * nn.functional.mse_loss(policy(batch.states), policy(nexts))

    check_slopes(steps.added(), loss, actor)


def test_caps_under_noise(monkeypatch):
    drawn = []

    def noise(observations, space, sigma):
        drawn.append(sigma * th.randn(observations.shape))
        return observations + drawn[-1]

    monkeypatch.setattr("sb3_pave.baselines.methods.caps.perturb", noise)
    model, actor, policy, steps, batch = one_step(caps(SAC), temporal_coef=0, spatial_coef=3.0, spatial_sigma=0.7)

    def loss():
        return 3.0 * 0.5 * nn.functional.mse_loss(policy(batch.states), policy(batch.states + drawn[0].double()))

    check_slopes(steps.added(), loss, actor)
    assert 0.5 < drawn[0].std() < 0.9
    # Fresh at each update
    model.train(1, 64)
    assert not th.equal(drawn[0], drawn[1])


def along(policy, batch):
    """The actions at three consecutive states of an episode."""
    nexts, previous, _, has_previous = batch.neighbours()
    before, now, after = (policy(states[has_previous]) for states in (previous, batch.states, nexts))
    return before, now, after


@pytest.mark.parametrize("kwargs", N_STEPS, ids=str)
@pytest.mark.parametrize("host", BOTH)
def test_grad(host, kwargs):
    check_second_differences(grad(host), **kwargs)


@pytest.mark.parametrize("kwargs", N_STEPS, ids=str)
def test_asaps_first_term_is_grads(kwargs):
    check_second_differences(asap(SAC), spatial_coef=0, predictor_coef=0, **kwargs)


def check_second_differences(algorithm, **kwargs):
    # The states are on straight lines, and the actor is nearly linear: a large weight
    _, actor, policy, steps, batch = one_step(algorithm, temporal_coef=1000.0, **kwargs)
    before, _, after = along(policy, batch)
    factor = th.tanh((1 / (after - before + 1e-4)) ** 2).detach()

    def loss():
        before, now, after = along(policy, batch)
        return 1000.0 * (0.5 * (2 * now - after - before) ** 2 * factor).mean()

    check_slopes(steps.added(), loss, actor)


@pytest.mark.parametrize("host", BOTH)
def test_asap(host):
    """Its second term moves the actor through the next action, its third through the last hidden layer."""
    model, actor, policy, steps, batch = one_step(asap(host), temporal_coef=0, spatial_coef=3.0, predictor_coef=2.0)
    nexts = batch.neighbours()[0]
    squash = th.tanh if isinstance(model, TD3) else (lambda values: values)
    hidden = actor.mu[:-2] if isinstance(model, TD3) else actor.latent_pi
    # At the first step the average is the actor itself, and the head's optimizer has moved the head by Adam's first step
    average = model._predictor._average
    weight, bias = average["head.weight"].double(), average["head.bias"].double()
    moved = (model._predictor.head.weight.double() - weight).abs()
    assert 0.9 * model.learning_rate < moved.median() <= 1.01 * model.learning_rate

    def prediction():
        return squash(nn.functional.linear(hidden(batch.states), weight, bias))

    followed, target = prediction().detach(), policy(nexts).detach()

    def loss():
        following = 0.5 * nn.functional.mse_loss(policy(nexts), followed)
        return 3.0 * following + 2.0 * 0.5 * nn.functional.mse_loss(prediction(), target)

    check_slopes(steps.added(), loss, actor)
    logged = model.logger.name_to_value
    assert logged["train/spatial_loss"] == pytest.approx(logged["train/predictor_loss"], rel=1e-4)


def test_asaps_average_moves_at_every_gradient_step():
    model = small(asap(TD3), batch_size=16, learning_rate=0.05, predictor_tau=0.1)
    model.learn(20)
    history = []
    model.critic.optimizer.register_step_post_hook(lambda *_: history.append(averages(model)))
    actors = []
    model.critic.optimizer.register_step_post_hook(lambda *_: actors.append(model.actor.mu[0].weight.detach().clone()))
    model.train(9, 16)  # the actor learns in each second one
    made = next(i for i, average in enumerate(history) if average is not None)
    assert made == 2 and len(history) == 9
    expected = actors[1]  # of the first step of the actor, which made it
    for average, actor in zip(history[made:], actors[made:], strict=True):
        expected = 0.9 * expected + 0.1 * actor
        th.testing.assert_close(average, expected, rtol=1e-5, atol=1e-7)
    assert not th.equal(expected, actors[-1])


def averages(model):
    return None if model._predictor is None else model._predictor._average["actor.mu.0.weight"].clone()


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("host", BOTH)
def test_damper(host, eta):
    model, actor, policy, steps, batch = one_step(damper(host), eta=eta)
    nexts, _, goes_on, _ = batch.neighbours()
    temporal_loss = (policy(nexts) - policy(batch.states))[goes_on].square().sum(dim=1).mean()
    gradients = th.autograd.grad(temporal_loss, list(actor.parameters()), allow_unused=True)
    pairs = zip(gradients, actor.parameters(), strict=True)
    g_t = np.concatenate([(th.zeros_like(p) if g is None else g).flatten().numpy() for g, p in pairs])
    g_r, g = (th.cat([part.flatten() for part in parts[0]]).double().numpy() for parts in (steps.before, steps.after))
    n_r, n_t = np.linalg.norm(g_r), np.linalg.norm(g_t)
    expected = g_r + n_r / n_t * min(n_t / n_r, 1) ** (1 - eta) * (g_t - min(g_r @ g_t, 0) / n_r**2 * g_r)
    np.testing.assert_allclose(g, expected, rtol=1e-3, atol=1e-4 * n_r)
    assert np.linalg.norm(g - g_r) > 1e-3 * n_r
    logged = model.logger.name_to_value
    assert logged["train/actor_grad_norm"] == pytest.approx(n_r, rel=1e-4)
    assert logged["train/temporal_grad_norm"] == pytest.approx(n_t, rel=1e-3)
    assert logged["train/grad_cosine"] == pytest.approx(g_r @ g_t / n_r / n_t, abs=1e-4)


@pytest.mark.parametrize("host", BOTH)
def test_damper_with_a_zero_temporal_gradient_is_the_host_bit_for_bit(host, monkeypatch):
    monkeypatch.setattr("sb3_pave.baselines.methods.damper.temporal_loss", lambda actions, *_: 0 * actions.sum())
    ours, hosts = (small(a).learn(60).policy.state_dict() for a in (damper(host), host))
    assert all(th.equal(ours[name], hosts[name]) for name in hosts)


def test_td3_gets_them_at_the_delayed_steps_only():
    model = small(temporal(TD3), policy_delay=3).learn(20)
    steps = ActorSteps(model)
    model.train(10, 8)
    assert len(steps.after) == 3 and all(steps.added(i).norm() > 0 for i in range(3))


def test_the_log_of_a_method_is_the_mean_over_the_updates():
    def logged(*calls):
        return logged_by_calls(small(temporal(SAC)).learn(20), "train/temporal_loss", *calls)

    first, second = logged(1, 1)
    assert first != pytest.approx(second)
    assert logged(2) == [pytest.approx((first + second) / 2)]


@pytest.mark.parametrize(
    ("factory", "term"), [(caps, "temporal"), (asap, "spatial"), (asap, "predictor")], ids=lambda x: getattr(x, "__name__", x)
)
def test_in_a_memory_optimized_buffer_the_next_episodes_first_state_does_not_count(factory, term):
    optimized = {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}}
    off = dict.fromkeys(["temporal_coef", "spatial_coef", "predictor_coef"][: 2 if factory is caps else 3], 0)
    env = make_vec_env(lambda: CountingEnv(episode_length=1), 1)
    model = small(factory(SAC), env, **optimized, **{**off, f"{term}_coef": 1.0}).learn(20)  # no state has a stored successor
    model.train(1, 8)
    assert model.logger.name_to_value[f"train/{term}_loss"] == 0
