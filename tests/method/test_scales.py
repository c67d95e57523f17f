"""Scale-free units: exact equivariances of the loss, and the running scales against NumPy."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from torch import nn

from sb3_pave.method.perturbation import perturb
from sb3_pave.method.points import FieldInputs
from sb3_pave.method.scales import Scales, return_range
from sb3_pave.method.terms import Terms, evaluate_terms

BATCH, OBS, ACT = 64, 5, 3
SPACE = spaces.Box(-np.inf, np.inf, (OBS,), np.float32)
COEFS, SIGMA, DELTA = (0.7, 0.3, 0.05), 0.02, 0.01


class Critic(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.q_networks = nn.ModuleList(
            nn.Sequential(nn.Linear(OBS + ACT, 16), nn.SiLU(), nn.Linear(16, 1)).to(dtype) for _ in range(2)
        )

    def forward(self, observations, actions):
        return tuple(network(th.cat([observations, actions], dim=1)) for network in self.q_networks)


def batch(dtype, seed=0):
    generator = th.Generator().manual_seed(seed)
    observations = th.randn(BATCH, OBS, generator=generator).to(dtype)
    return (
        observations,
        th.rand(BATCH, ACT, generator=generator).to(dtype) * 2 - 1,
        th.randn(BATCH, 1, generator=generator).to(dtype),
    )


def loss_and_gradients(critic, observations, actions, rewards):
    """The whole loss of one update, TD term included, from fresh scales of the critic's type."""
    th.manual_seed(3)
    parameters = list(critic.parameters())
    dtype = parameters[0].dtype
    scales = Scales(SPACE, th.device("cpu"))
    scales.return_scale = scales.return_scale.to(dtype)
    scales._variances = {key: variance.to(dtype) for key, variance in scales._variances.items()}
    target = rewards + 0.9 * th.stack(critic(observations, actions)).amin(dim=0).detach()
    scales.observe(target, observations)
    noisy = perturb(observations, SPACE, SIGMA, scales=scales)
    direction = th.empty_like(actions).bernoulli_(0.5).mul_(2).sub_(1)
    inputs = FieldInputs(observations, actions, noisy, observations.roll(1, dims=0), direction)
    curv_coef, delta = scales.curv_coef_and_delta(COEFS[2], DELTA, ACT)
    terms, _ = evaluate_terms(critic, Terms(inputs, (*COEFS[:2], curv_coef), delta))
    td_loss = sum(nn.functional.mse_loss(values, target) for values in critic(observations, actions))
    total = td_loss + terms
    return total.detach(), th.autograd.grad(total, parameters)


def with_last_layers_times(critic, factor):
    with th.no_grad():
        for network in critic.q_networks:
            network[-1].weight *= factor
            network[-1].bias *= factor
    return critic


def reward_scaled(factor, dtype):
    """Losses and gradients before and after rewards and last layers are multiplied, and the factor of each gradient."""
    th.manual_seed(0)
    critic = Critic(dtype)
    observations, actions, rewards = batch(dtype)
    before = loss_and_gradients(critic, observations, actions, rewards)
    after = loss_and_gradients(with_last_layers_times(critic, factor), observations, actions, factor * rewards)
    # L(cQ) = c² L(Q): with respect to a last layer, which is c times itself, its gradient has one c less
    powers = [1 if name.split(".")[2] == "2" else 2 for name, _ in critic.named_parameters()]
    return before, after, [factor**power for power in powers]


@pytest.mark.parametrize("factor", [0.013, 0.5, 3.7, 1234.5])
def test_the_loss_grows_with_the_square_of_the_rewards_scale(factor):
    (loss, gradients), (scaled, scaled_gradients), factors = reward_scaled(factor, th.float64)
    th.testing.assert_close(scaled, factor**2 * loss, rtol=1e-12, atol=0)
    for gradient, own, times in zip(gradients, scaled_gradients, factors, strict=True):
        th.testing.assert_close(own, times * gradient, rtol=1e-9, atol=1e-12 * times)


@pytest.mark.parametrize("factor", [2.0**-7, 0.5, 2.0, 2.0**10])
def test_powers_of_two_change_no_bit(factor):
    (loss, gradients), (scaled, scaled_gradients), factors = reward_scaled(factor, th.float32)
    assert th.equal(scaled, factor**2 * loss)
    for gradient, own, times in zip(gradients, scaled_gradients, factors, strict=True):
        assert th.equal(own, times * gradient)


def test_observations_in_other_units_give_the_same_loss():
    th.manual_seed(0)
    critic = Critic(th.float64)
    observations, actions, rewards = batch(th.float64)
    loss, _ = loss_and_gradients(critic, observations, actions, rewards)
    units = th.tensor([0.01, 1.0, 100.0, 3.3, 1e4], dtype=th.float64)
    offset = th.tensor([5.0, 0.0, -3.0, 1.0, 1e3], dtype=th.float64)
    with th.no_grad():
        for network in critic.q_networks:
            # The first layer, expressed in the new units
            network[0].weight[:, :OBS] /= units
            network[0].bias -= network[0].weight[:, :OBS] @ offset
    other, _ = loss_and_gradients(critic, observations * units + offset, actions, rewards)
    th.testing.assert_close(other, loss, rtol=1e-9, atol=0)


def test_in_units_of_one_it_is_the_papers_loss():
    scales = Scales(SPACE, th.device("cpu"), return_scale=1.0, observation_spread=np.ones(OBS))
    critic = Critic(th.float32)
    observations, actions, _ = batch(th.float32)
    direction = th.ones_like(actions)
    coef, delta = scales.curv_coef_and_delta(0.7, 0.4, action_dim=1)
    th.manual_seed(1)
    ours = perturb(observations, SPACE, SIGMA, scales=scales)
    th.manual_seed(1)
    assert th.equal(ours, perturb(observations, SPACE, SIGMA))
    points = FieldInputs(observations, actions, direction=direction)
    assert th.equal(
        evaluate_terms(critic, Terms(points, (0, 0, coef), delta))[0],
        evaluate_terms(critic, Terms(points, (0, 0, 0.7), 0.4))[0],
    )


def test_curvature_is_asked_for_per_action_dimension():
    # λ3 S E max(0, c/d_a + δ S) by hand: S = 10, d_a = 2, c = -0.1 -> 0.05 * 10 * (-0.05 + 0.02 * 10)
    scales = Scales(SPACE, th.device("cpu"), return_scale=10.0)
    coef, delta = scales.curv_coef_and_delta(0.05, 0.02, action_dim=2)
    assert coef * max(0.0, -0.1 + delta) == pytest.approx(0.075)


def test_the_range_of_returns_is_that_of_numpys_percentiles():
    returns = th.randn(101, dtype=th.float64) * 7 + 3
    low, high = np.percentile(returns, [5, 95])
    assert return_range(returns).item() == pytest.approx(high - low)
    assert return_range(th.tensor([4.0])) == 0


def test_quantiles_of_the_return_enter_by_their_mean():
    quantiles = th.randn(BATCH, 5, generator=th.Generator().manual_seed(0))
    scales = Scales(SPACE, th.device("cpu"))
    scales.observe(quantiles)
    low, high = np.percentile(quantiles.numpy().mean(axis=1), [5, 95])
    assert scales.return_scale.item() == pytest.approx(high - low)


def test_averages_begin_with_the_first_batch_and_follow_slowly():
    scales = Scales(SPACE, th.device("cpu"))
    still = th.zeros(BATCH, OBS)
    scales.observe(th.zeros(BATCH, 1), still)
    assert scales.return_scale == 0 and (scales.spread() == 0).all()
    observations = th.randn(BATCH, OBS) * th.tensor([1.0, 10.0, 0.0, 1.0, 1.0])
    returns = th.linspace(0, 100, 101)[:, None].repeat(1, 3)
    scales.observe(returns, observations)
    assert scales.return_scale == pytest.approx(90) and scales.spread()[2] == 0
    np.testing.assert_allclose(scales.spread(), observations.numpy().std(axis=0), rtol=1e-5)
    # A hundredth of the way; what has exploded counts for twice the average only
    scales.observe(returns / 2)
    assert scales.return_scale == pytest.approx(90 - 0.45)
    scales.observe(returns * 1e6)
    assert scales.return_scale == pytest.approx(89.55 * 1.01)


def test_batches_of_equal_returns_say_nothing_of_the_scale():
    """Where rewards are rare and episodes a step long, most batches are such."""
    scales, equal = Scales(SPACE, th.device("cpu"), return_scale=0.9), th.ones(BATCH, 1)
    for _ in range(3):
        scales.observe(equal)
    assert scales.return_scale == pytest.approx(0.9)


@pytest.mark.parametrize("reading", [np.nan, np.inf])
def test_a_return_that_is_not_finite_says_nothing_of_the_scale(reading):
    scales = Scales(SPACE, th.device("cpu"))
    scales.observe(th.tensor([[0.0], [10.0]]))
    before = scales.return_scale.clone()
    scales.observe(th.tensor([[0.0], [reading]]))
    assert before > 0 and th.equal(scales.return_scale, before)
    assert Scales(SPACE, th.device("cpu"), return_scale=reading).return_scale == 0


def test_a_spread_goes_on_from_the_digit_where_it_was():
    space = spaces.Box(-np.inf, np.inf, (100,), np.float32)
    scales = Scales(space, th.device("cpu"))
    scales.observe(th.randn(BATCH, 1), th.randn(BATCH, 100))
    loaded = Scales(space, th.device("cpu"), float(scales.return_scale), scales.spread_as_numbers())
    assert all(map(th.equal, loaded.tensors, scales.tensors))


def test_a_spread_that_an_older_save_has_lost_begins_anew():
    scales = Scales(SPACE, th.device("cpu"), observation_spread=np.array([1.0, np.nan, np.inf, 2.0, 0.0], np.float32))
    assert scales.spread().tolist() == [1.0, 0.0, 0.0, 2.0, 0.0]


@pytest.mark.parametrize("reading", [np.inf, np.nan, 1e30])
def test_a_reading_that_is_not_finite_leaves_the_average_of_its_dimension(reading):
    """So does one whose square is not: the other dimensions go on."""
    scales, (observations, _, returns) = Scales(SPACE, th.device("cpu")), batch(th.float32)
    scales.observe(returns, observations)
    before = scales.spread().clone()
    observations = 2 * observations
    observations[3, 1] = reading
    scales.observe(returns, observations)
    after = scales.spread()
    others = th.arange(OBS) != 1
    assert after[1] == before[1] and th.isfinite(after).all() and (after[others] > before[others]).all()


def test_images_and_discrete_entries_have_no_spread_and_each_entry_its_own():
    space = spaces.Dict(
        image=spaces.Box(0, 255, (3, 36, 36), np.uint8),
        wide=spaces.Box(-100, 100, (2,), np.float32),
        narrow=spaces.Box(-1, 1, (2,), np.float32),
        choice=spaces.Discrete(3),
    )
    scales = Scales(space, th.device("cpu"))
    observations = {
        "image": th.zeros(BATCH, 3, 36, 36, dtype=th.uint8),
        "wide": 50 * th.randn(BATCH, 2),
        "narrow": 0.1 * th.randn(BATCH, 2),
        "choice": th.zeros(BATCH, 1, dtype=th.long),
    }
    scales.observe(th.randn(BATCH, 1), observations)
    assert scales.spread("image") is None and scales.spread("choice") is None
    noisy = perturb(observations, space, 0.01, scales=scales)
    assert th.equal(noisy["choice"], observations["choice"])
    for key in ("wide", "narrow"):
        noise = (noisy[key] - observations[key]).std() / observations[key].std()
        assert noise.item() == pytest.approx(0.01, rel=0.25)
    assert (noisy["image"] - observations["image"]).std().item() == pytest.approx(2.55, rel=0.1)
    assert set(scales.spread_as_numbers()) == {"wide", "narrow"}
