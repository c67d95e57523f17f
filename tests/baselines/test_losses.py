"""The losses and DAMPER's rule against definitions written independently, in float64."""

import numpy as np
import pytest
import torch as th
from stable_baselines3 import TD3

from sb3_pave.baselines import caps
from sb3_pave.baselines.methods.asap import following_loss, prediction_loss
from sb3_pave.baselines.methods.caps import half_mean_squared_change
from sb3_pave.baselines.methods.damper import damped_gradient
from sb3_pave.baselines.methods.grad import second_difference_loss
from sb3_pave.baselines.methods.temporal import temporal_loss
from sb3_pave.baselines.transitions import Transitions
from tests.baselines.agents import small

BATCH, OBS_DIM, ACTION_DIM = 7, 4, 3


@pytest.fixture
def generator():
    return th.Generator().manual_seed(0)


def normal(generator, *shape):
    return th.randn(*shape, dtype=th.float64, generator=generator)


def everywhere(n=BATCH):
    return th.ones(n, dtype=th.float64)


def test_the_temporal_gradient_of_a_linear_actor(generator):
    """``2 W Δs Δsᵀ``, a mean over the transitions that count."""
    gains = normal(generator, ACTION_DIM, OBS_DIM).requires_grad_()
    states, nexts = normal(generator, BATCH, OBS_DIM), normal(generator, BATCH, OBS_DIM)
    weight = th.tensor([1, 1, 0, 1, 0, 1, 1], dtype=th.float64)
    loss = temporal_loss(states @ gains.T, nexts @ gains.T, weight)
    (gradient,) = th.autograd.grad(loss, gains)
    moves = [(nexts - states)[i] for i in range(BATCH) if weight[i] > 0]
    expected = sum(2 * gains @ move[:, None] @ move[None] for move in moves) / len(moves)
    th.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)
    assert loss.item() == pytest.approx(np.mean([float((gains.detach() @ move).square().sum()) for move in moves]), rel=1e-12)


def test_temporal_is_caps_with_twice_the_dimension_in_its_weight(generator):
    actions, nexts = normal(generator, BATCH, ACTION_DIM), normal(generator, BATCH, ACTION_DIM)
    caps = half_mean_squared_change(actions, nexts, everywhere())
    assert temporal_loss(actions, nexts, everywhere()).item() == pytest.approx(2 * ACTION_DIM * caps.item(), rel=1e-12)
    assert caps.item() == pytest.approx(0.5 * th.nn.functional.mse_loss(actions, nexts).item(), rel=1e-12)


def test_the_spatial_term_of_a_linear_actor_has_its_known_expectation(generator):
    gains, sigma = normal(generator, ACTION_DIM, OBS_DIM), 0.2
    states = normal(generator, 400_000, OBS_DIM)
    noisy = states + sigma * normal(generator, 400_000, OBS_DIM)
    loss = half_mean_squared_change(states @ gains.T, noisy @ gains.T, everywhere(len(states)))
    assert loss.item() == pytest.approx(sigma**2 * gains.square().sum().item() / (2 * ACTION_DIM), rel=0.01)


def test_grad_is_zero_on_an_affine_trajectory(generator):
    # Binary fractions, so that nothing is rounded
    start, slope = (normal(generator, BATCH, ACTION_DIM).mul(64).round() / 64 for _ in range(2))
    assert second_difference_loss(start - slope, start, start + slope, everywhere()).item() == 0


def grad_definition(previous, actions, nexts, frozen=None):
    total = 0.0
    for row in range(len(actions)):
        for i in range(ACTION_DIM):
            delta = nexts[row, i] - previous[row, i] + 1e-4
            factor = np.tanh((1 / delta) ** 2) if frozen is None else frozen[row, i]
            total += 0.5 * (2 * actions[row, i] - nexts[row, i] - previous[row, i]) ** 2 * factor
    return total / (len(actions) * ACTION_DIM)


def test_grad_is_its_formula_and_the_tanh_has_no_gradient(generator):
    triple = [normal(generator, BATCH, ACTION_DIM).requires_grad_() for _ in range(3)]
    loss = second_difference_loss(*triple, everywhere())
    arrays = [tensor.detach().numpy().copy() for tensor in triple]
    assert loss.item() == pytest.approx(grad_definition(*arrays), rel=1e-12)
    gradients = th.autograd.grad(loss, triple)
    frozen = np.tanh((1 / (arrays[2] - arrays[0] + 1e-4)) ** 2)
    for array, gradient in zip(arrays, gradients, strict=True):
        for index in [(0, 0), (3, 2), (6, 1)]:
            middle = array[index]
            differences = []
            for step in (1e-6, -1e-6):
                array[index] = middle + step
                differences.append(grad_definition(*arrays, frozen))
            array[index] = middle
            assert gradient[index].item() == pytest.approx((differences[0] - differences[1]) / 2e-6, rel=1e-5, abs=1e-9)


def test_grad_where_the_action_does_not_move(generator):
    """``Δ`` is then 0, its inverse infinite and the tanh 1."""
    actions = normal(generator, BATCH, ACTION_DIM).requires_grad_()
    previous = th.zeros(BATCH, ACTION_DIM, dtype=th.float64)
    loss = second_difference_loss(previous, actions, previous - 1e-4, everywhere())
    (gradient,) = th.autograd.grad(loss, actions)
    assert th.isfinite(gradient).all()
    assert loss.item() == pytest.approx(0.5 * (2 * actions.detach() + 1e-4).square().mean().item(), rel=1e-12)


def test_with_asaps_perfect_predictor_only_grad_is_left(generator):
    actions = normal(generator, BATCH, ACTION_DIM).requires_grad_()
    predicted = actions.detach().clone().requires_grad_()
    loss = following_loss(actions, predicted, everywhere()) + prediction_loss(predicted, actions, everywhere())
    assert loss.item() == 0
    assert all(gradient.abs().max() == 0 for gradient in th.autograd.grad(loss, (actions, predicted)))


def test_which_of_asaps_terms_moves_what(generator):
    actions, predicted = (normal(generator, BATCH, ACTION_DIM).requires_grad_() for _ in range(2))
    difference = (actions - predicted).detach() / (BATCH * ACTION_DIM)
    half_mse = 0.5 * th.nn.functional.mse_loss(actions, predicted).item()
    for loss, moved, other, sign in (
        (following_loss(actions, predicted, everywhere()), actions, predicted, 1),
        (prediction_loss(predicted, actions, everywhere()), predicted, actions, -1),
    ):
        assert loss.item() == pytest.approx(half_mse, rel=1e-12)
        gradient, none = th.autograd.grad(loss, (moved, other), allow_unused=True)
        th.testing.assert_close(gradient, sign * difference, rtol=1e-12, atol=1e-15)
        assert none is None


@pytest.mark.parametrize("loss", [temporal_loss, half_mean_squared_change, following_loss, prediction_loss])
def test_transitions_that_do_not_count_change_nothing(loss, generator):
    first, second = (normal(generator, BATCH, ACTION_DIM) for _ in range(2))
    weight = th.tensor([1, 0, 1, 1, 0, 0, 1], dtype=th.float64)
    rows = weight > 0
    expected = loss(first[rows], second[rows], everywhere(4))
    second[~rows] += 100
    assert loss(first, second, weight).item() == pytest.approx(expected.item(), rel=1e-12)
    assert loss(first, second, 0 * weight).item() == 0


def damper_definition(g_r, g_t, eta):
    n_r, n_t = np.sqrt(g_r @ g_r), np.sqrt(g_t @ g_t)
    g_tilde = g_t - min(g_r @ g_t, 0.0) / n_r**2 * g_r
    return g_r + n_r / n_t * min(n_t / n_r, 1.0) ** (1 - eta) * g_tilde


CASES = [(scale, eta, sign) for scale in (1e-3, 0.5, 40.0) for eta in (0.0, 0.3, 1.0) for sign in (1, -1)]


@pytest.mark.parametrize(("scale", "eta", "sign"), CASES)
def test_damper_is_its_formula_and_keeps_its_promises(scale, eta, sign, generator):
    return_grad = normal(generator, 20)
    # With and against it
    temporal_grad = scale * (normal(generator, 20) + sign * 2 * return_grad)
    damped = damped_gradient(return_grad, temporal_grad, eta)
    np.testing.assert_allclose(damped, damper_definition(return_grad.numpy(), temporal_grad.numpy(), eta), rtol=1e-12)
    assert sign * th.dot(return_grad, temporal_grad) > 0
    assert th.dot(damped, return_grad) >= return_grad.square().sum() * (1 - 1e-12)
    assert (damped - return_grad).norm() <= return_grad.norm() * (1 + 1e-12)


def test_dampers_limits(generator):
    return_grad, temporal_grad = normal(generator, 20), 0.1 * normal(generator, 20)
    temporal_grad -= 0.1 * return_grad
    assert temporal_grad.norm() < return_grad.norm() and th.dot(return_grad, temporal_grad) < 0
    projected = temporal_grad - th.dot(return_grad, temporal_grad) / return_grad.square().sum() * return_grad
    th.testing.assert_close(damped_gradient(return_grad, temporal_grad, 0), return_grad + projected, rtol=1e-12, atol=0)
    # Without conflict and at full strength, the temporal gradient counts as much as the host's
    aligned = temporal_grad - 2 * th.dot(return_grad, temporal_grad) / return_grad.square().sum() * return_grad
    added = damped_gradient(return_grad, aligned, 1) - return_grad
    assert added.norm().item() == pytest.approx(return_grad.norm().item(), rel=1e-12)
    th.testing.assert_close(added / added.norm(), aligned / aligned.norm(), rtol=1e-10, atol=1e-12)
    # One that is longer than the host's is cut to its length, whatever eta
    for eta in (0, 0.4, 1):
        th.testing.assert_close(
            damped_gradient(return_grad, 1e6 * aligned, eta), damped_gradient(return_grad, aligned, 1), rtol=1e-10, atol=0
        )


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_damper_with_one_gradient_gives_that_as_it_is(eta, generator):
    gradient, zero = normal(generator, 20), th.zeros(20, dtype=th.float64)
    assert th.equal(damped_gradient(gradient, zero, eta), gradient)
    assert th.equal(damped_gradient(zero, gradient, eta), gradient)
    assert th.equal(damped_gradient(zero, zero, eta), zero)


def test_damper_of_tiny_gradients_in_single_precision(generator):
    return_grad, temporal_grad = (normal(generator, 20).mul(1e-15) for _ in range(2))
    expected = damper_definition(return_grad.numpy(), temporal_grad.numpy(), 0.5)
    damped = damped_gradient(return_grad.float(), temporal_grad.float(), 0.5)
    np.testing.assert_allclose(damped.double().numpy(), expected, rtol=1e-4)


def test_the_spatial_term_is_of_every_state_also_where_the_next_one_is_not_stored():
    model = small(caps(TD3), temporal_coef=0.0)
    states, none = th.randn(4, 3), th.zeros(4)
    assert model._terms(Transitions(states, states, none, none))["spatial"] > 0
