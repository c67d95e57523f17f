"""Every measure against a hand-computed number or the definition written out term by term."""

import cmath

import numpy as np
import pytest

from sb3_pave.evaluation import smoothness as sm


def published_sm(actions) -> float:
    """The definition with its sums written out: no FFT, no vectorisation."""
    actions = np.asarray(actions, dtype=float)
    columns = [actions] if actions.ndim == 1 else list(actions.T)
    scores = []
    for column in columns:
        n = len(column)
        score = 0.0
        for i in range(n):
            if i < n // 2:  # the authors' slice of the spectrum, also of an odd number of steps
                modulus = abs(sum(a * cmath.exp(-2j * cmath.pi * i * t / n) for t, a in enumerate(column)))
                score += modulus * i / n
        scores.append(2.0 / n * score)
    return float(np.mean(scores))


@pytest.mark.parametrize("shape", [(1,), (2,), (3,), (64,), (65,), (1, 3), (50, 3), (51, 3), (7, 1)])
def test_sm_is_the_published_definition(shape):
    actions = np.random.default_rng(0).uniform(-2, 2, shape)
    assert sm.smoothness_score(actions) == pytest.approx(published_sm(actions), rel=0, abs=1e-12)


@pytest.mark.parametrize("n", [2, 3])
def test_sm_of_three_steps_is_zero(n):
    """One bin is left of them, and its frequency is 0: the published tables have it so."""
    assert sm.smoothness_score([1.0, -1.0, 1.0][:n]) == 0.0


def test_sm_of_five_steps_by_hand():
    """Of bins 0, 1 and 2 the first two count. A unit impulse has modulus 1 in each, so that sm = 2/5 (0 + 1/5)."""
    assert sm.smoothness_score([1.0, 0.0, 0.0, 0.0, 0.0]) == pytest.approx(2 / 25, abs=1e-15)
    assert sm.smoothness_score([1.0, 0.0, 0.0, 0.0, 0.0, 0.0]) == pytest.approx(2 / 6 * (1 + 2) / 6, abs=1e-15)
    assert sm.smoothness_score([1.0, 0.0, 0.0, 0.0, 0.0], control_rate=10.0) == pytest.approx(20 / 25, abs=1e-14)


def test_sm_of_a_sine_is_its_amplitude_times_its_frequency():
    """A sine on a DFT frequency has one line of modulus A n / 2."""
    steps = np.arange(200)
    actions = 1.5 * np.sin(2 * np.pi * 0.1 * steps + 0.3)
    assert sm.smoothness_score(actions) == pytest.approx(1.5 * 0.1, abs=1e-12)
    assert sm.smoothness_score(actions, control_rate=50.0) == pytest.approx(1.5 * 5.0, abs=1e-10)


def test_sm_of_white_noise_has_the_spectrum_of_white_noise():
    """|DFT| of n unit normals is Rayleigh with mean sqrt(pi n) / 2 at every frequency, so E[sm] ~ sqrt(pi / n) n / 8."""
    n, episodes = 1000, 400
    noise = np.random.default_rng(1).standard_normal((n, episodes))
    expected = np.sqrt(np.pi * n) / 2 * (2 / n) * sum(i / n for i in range(1, n // 2))
    # Standard error of the mean over the independent columns: about 0.1 %
    assert sm.smoothness_score(noise) == pytest.approx(expected, rel=0.005)


def test_a_constant_is_perfectly_smooth():
    actions = np.full((40, 2), 0.1)
    measures = sm.smoothness_measures(actions, -1, 1)
    for name in ("sm", "sm_scaled", "sm_hz"):
        assert measures[name] == pytest.approx(0.0, abs=1e-14)
    for name in ("action_change", "continuity_cost", "second_difference", "high_frequency_share", "saturation"):
        assert measures[name] == 0.0
    assert measures["control_effort"] == pytest.approx(2 * 0.1**2)


def test_one_step_scores_zero_everywhere_but_effort():
    measures = sm.smoothness_measures([[0.5]], -1, 1)
    assert measures.pop("control_effort") == 0.25
    assert set(measures.values()) == {0.0}


def test_differences_by_hand():
    actions = [[0.0, 0.0], [1.0, 0.5], [-1.0, 1.0]]
    assert sm.action_change(actions) == pytest.approx((1 + 2 + 0.5 + 0.5) / 4)
    assert sm.second_difference(actions) == pytest.approx((3 + 0) / 2)
    # ranges 2 and 4: (1/2)², (2/2)², (0.5/4)², (0.5/4)²
    assert sm.continuity_cost(actions, [-1, -2], [1, 2]) == pytest.approx((0.25 + 1.0 + 2 * 0.015625) / 4)
    assert sm.control_effort(actions) == pytest.approx((0 + 1.25 + 2) / 3)


def test_bang_bang_costs_the_most():
    actions = np.tile([-2.0, 2.0], 10)
    assert sm.continuity_cost(actions, -2, 2) == 1.0
    assert sm.saturation_rate(actions, -2, 2) == 1.0
    assert sm.second_difference(actions) == 2 * sm.action_change(actions) == 8.0
    assert sm.high_frequency_share(actions) == 1.0


def test_saturation_counts_components_within_one_percent_of_either_bound():
    # Bounds [0, 4]: centre 2, half range 2, so at a bound means <= 0.02 or >= 3.98
    actions = [[0.0, 2.0], [0.0199, 3.97], [0.0201, 3.981], [4.0, 2.0]]
    assert sm.saturation_rate(actions, [0, 0], [4, 4]) == 4 / 8
    assert sm.is_saturated(actions, 0, 4).tolist() == [[True, False], [True, False], [False, True], [True, False]]


def test_energy_share_of_two_sines_is_the_ratio_of_their_squared_amplitudes():
    seconds = np.arange(500) / 50.0
    actions = 5.0 + 3.0 * np.sin(2 * np.pi * 1.0 * seconds) + 4.0 * np.sin(2 * np.pi * 20.0 * seconds)
    assert sm.high_frequency_share(actions, cutoff=10.0, control_rate=50.0) == pytest.approx(16 / 25, abs=1e-12)
    assert sm.high_frequency_share(actions, cutoff=0.5, control_rate=50.0) == pytest.approx(1.0, abs=1e-12)
    assert sm.smoothness_measures(actions, -5, 15, 50.0, cutoff=0.5)["high_frequency_share"] == pytest.approx(1.0, abs=1e-12)
    assert sm.high_frequency_share(10 * actions, cutoff=10.0, control_rate=50.0) == pytest.approx(16 / 25, abs=1e-12)


@pytest.mark.parametrize("control_rate", [1.0, 1 / 3, 30.0, 50.0, 125.0])
def test_what_swings_at_the_cutoff_is_not_above_it(control_rate):
    for n_steps in range(4, 200, 4):
        actions = np.tile([0.0, 1.0, 0.0, -1.0], n_steps // 4)
        assert sm.high_frequency_share(actions, control_rate=control_rate) == pytest.approx(0.0, abs=1e-12)


def test_white_noise_spreads_its_energy_evenly():
    noise = np.random.default_rng(2).standard_normal((1000, 200))
    # 250 of the 500 lines above zero lie above a quarter of the rate (Nyquist weighs half a line)
    assert sm.high_frequency_share(noise) == pytest.approx(249.5 / 499.5, rel=0.01)


@pytest.mark.parametrize("n_steps", [1, 2, 9, 10])
def test_the_spectrum_sums_to_the_variance(n_steps):
    actions = np.random.default_rng(3).standard_normal((n_steps, 2))
    frequencies, energy = sm.action_spectrum(actions, control_rate=20.0)
    np.testing.assert_allclose(energy.sum(axis=0), actions.var(axis=0), atol=1e-14)
    np.testing.assert_allclose(frequencies, 20.0 * np.arange(n_steps // 2 + 1) / n_steps)


def test_scaled_measures_do_not_depend_on_the_units():
    actions = np.random.default_rng(4).uniform(-1, 1, (60, 2))
    plain = sm.smoothness_measures(actions, -1, 1, control_rate=20.0)
    large = sm.smoothness_measures(100 * actions + 7, -93, 107, control_rate=20.0)
    for name in ("sm_scaled", "sm_hz", "continuity_cost", "high_frequency_share", "saturation"):
        assert large[name] == pytest.approx(plain[name], rel=1e-9)
    assert large["sm"] == pytest.approx(100 * plain["sm"])
    assert plain["sm_hz"] == pytest.approx(20 * plain["sm_scaled"])


def test_without_bounds_the_measures_that_need_them_are_nan():
    measures = sm.smoothness_measures([0.0, 1.0, 0.5], -np.inf, np.inf)
    assert measures["action_change"] == 0.75
    assert np.isnan([measures[name] for name in ("sm_scaled", "sm_hz", "continuity_cost", "saturation")]).all()


def test_a_dimension_that_cannot_move_is_left_out_where_bounds_count():
    actions = np.random.default_rng(4).uniform(-1, 1, (20, 2)) * [1, 0]
    measures, moving = sm.smoothness_measures(actions, [-1, 0], [1, 0]), sm.smoothness_measures(actions[:, :1], -1, 1)
    for name in ("sm_scaled", "sm_hz", "continuity_cost", "saturation"):
        assert measures[name] == pytest.approx(moving[name])
    assert measures["sm"] == pytest.approx(moving["sm"] / 2)
    assert np.isnan(sm.smoothness_measures([0.0, 0.0], 0, 0)["sm_scaled"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sm.smoothness_score([]), "not empty"),
        (lambda: sm.smoothness_score(np.zeros((2, 3, 4))), r"\(2, 3, 4\)"),
        (lambda: sm.action_change([0.0, np.nan]), "diverged"),
        (lambda: sm.smoothness_score([0.0, 1.0], control_rate=0.0), "control_rate"),
        (lambda: sm.high_frequency_share([0.0, 1.0], cutoff=0.6), "cutoff"),
        (lambda: sm.saturation_rate([0.0], -np.inf, 1), "finite bounds"),
        (lambda: sm.continuity_cost([0.0], 1, 1), "low < high"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
