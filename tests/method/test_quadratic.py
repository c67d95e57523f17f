"""Field and losses of a critic for which every number is known by hand."""

import pytest
import torch as th

from sb3_pave.method.field import GradientField, gradient_field
from sb3_pave.method.losses import curvature_preservation, mixed_partial, pave_losses, signals, vector_field_consistency
from sb3_pave.method.points import FieldInputs
from tests.method.quadratic import QuadraticCritic, random_quadratic

BATCH = 7


@pytest.fixture
def points():
    th.manual_seed(0)
    critic = random_quadratic()
    obs, noisy, successor = th.randn(3, BATCH, 4, dtype=th.float64)
    actions = th.rand(BATCH, 3, dtype=th.float64) * 2 - 1
    direction = th.randint(0, 2, (BATCH, 3)).double() * 2 - 1
    field = gradient_field(critic, FieldInputs(obs, actions, noisy, successor, direction))
    return critic, obs, noisy, successor, actions, direction, field


def test_the_field_is_minus_h_a_plus_b_s(points):
    critic, obs, noisy, successor, actions, direction, field = points
    for i, (hessian, mixed) in enumerate(zip(critic.hessians, critic.mixed, strict=True)):
        for state, grad in ((obs, field.grad), (noisy, field.grad_noisy), (successor, field.grad_next)):
            for row in range(BATCH):
                th.testing.assert_close(grad[i, row], -hessian @ actions[row] + mixed @ state[row])
        for row in range(BATCH):
            th.testing.assert_close(field.curvature[i, row], -direction[row] @ hessian @ direction[row])


def test_the_losses_follow_the_conventions_of_the_published_weights(points):
    critic, obs, noisy, successor, _, direction, field = points
    delta = 30.0
    losses = pave_losses(field, delta)
    mpr = vfc = curv = 0.0
    for hessian, mixed in zip(critic.hessians, critic.mixed, strict=True):  # summed over the critics
        for row in range(BATCH):  # means over the batch and over the three action dimensions
            mpr += (mixed @ (noisy[row] - obs[row])).square().sum() / 3 / BATCH
            vfc += (mixed @ (successor[row] - obs[row])).square().sum() / 3 / BATCH
            curv += max(0.0, delta - direction[row] @ hessian @ direction[row]) / BATCH
    th.testing.assert_close(losses.mpr, mpr)
    th.testing.assert_close(losses.vfc, vfc)
    th.testing.assert_close(losses.curv, curv)
    assert curv > 0


def test_mpr_estimates_sigma_squared_times_the_frobenius_norm():
    th.manual_seed(1)
    critic = random_quadratic(n_critics=1, action_dim=2)
    n, sigma = 200_000, 0.01
    obs, actions = th.randn(n, 4, dtype=th.float64), th.zeros(n, 2, dtype=th.float64)
    field = gradient_field(critic, FieldInputs(obs, actions, noisy_observations=obs + sigma * th.randn_like(obs)))
    expected = sigma**2 * critic.mixed[0].square().sum() / 2  # mean over the two action dimensions
    assert mixed_partial(field.grad, field.grad_noisy).item() == pytest.approx(expected.item(), rel=0.02)


def test_rademacher_directions_estimate_the_trace():
    th.manual_seed(2)
    critic = random_quadratic(n_critics=1)
    n = 100_000
    direction = th.randint(0, 2, (n, 3)).double() * 2 - 1
    field = gradient_field(critic, FieldInputs(th.zeros(n, 4).double(), th.zeros(n, 3).double(), direction=direction))
    assert field.curvature.mean().item() == pytest.approx(-critic.hessians[0].trace().item(), rel=0.02)


def test_hand_computed_numbers():
    # Q = -½ · 2 a² + 3 a s: ∇_a Q = -2a + 3s, so a state moved by 0.1 changes it by 0.3; curvature -2
    critic = QuadraticCritic(th.tensor([[[2.0]]]), th.tensor([[[3.0]]]))
    obs, actions = th.tensor([[1.0], [0.0]]), th.tensor([[0.5], [-1.0]])
    field = gradient_field(critic, FieldInputs(obs, actions, next_observations=obs + 0.1, direction=th.ones(2, 1)))
    th.testing.assert_close(field.grad, th.tensor([[[2.0], [2.0]]]))
    th.testing.assert_close(vector_field_consistency(field.grad, field.grad_next), th.tensor(0.09))
    th.testing.assert_close(curvature_preservation(field.curvature, 1.0), th.tensor(0.0))
    th.testing.assert_close(curvature_preservation(field.curvature, 2.5), th.tensor(0.5))


def test_a_transition_without_successor_does_not_count_in_vfc_alone():
    grad, displaced = th.zeros(2, 3, 1), th.tensor([1.0, 2.0, 100.0]).reshape(1, 3, 1).expand(2, 3, 1)
    curvature = displaced.squeeze(dim=2)
    field, exists = GradientField(grad, displaced, displaced, curvature), th.tensor([1.0, 1.0, 0.0])
    losses = pave_losses(field, 0.0, exists)
    assert losses.vfc.item() == pytest.approx(2 * (1 + 4) / 2)
    assert losses.mpr.item() == pytest.approx(2 * (1 + 4 + 100**2) / 3)
    assert losses.curv.item() == pytest.approx(2 * (1 + 2 + 100) / 3)
    assert pave_losses(field, 0.0, th.zeros(3)).vfc.item() == 0


def test_the_log_shows_the_fields_size_per_dimension_and_how_much_of_it_is_concave():
    # Two critics, three transitions, two action dimensions; what is flat is not concave
    grad, curvature = th.tensor([3.0, 4.0]).expand(2, 3, 2), th.tensor([[-1.0, -2.0, 0.0], [-1.0, -1.0, 5.0]])
    field = GradientField(grad, None, None, curvature)
    logged = signals(field, pave_losses(field, 1.0))
    assert logged["action_grad_rms"].item() == pytest.approx(((9 + 16) / 2) ** 0.5)
    assert logged["concave_share"].item() == pytest.approx(4 / 6)


def test_what_was_not_asked_for_is_not_evaluated():
    critic = random_quadratic()
    field = gradient_field(critic, FieldInputs(th.zeros(2, 4).double(), th.zeros(2, 3).double()))
    assert field.grad_noisy is field.grad_next is field.curvature is None
    assert pave_losses(field, 1.0) == (None, None, None)
