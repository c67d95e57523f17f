"""Aggregation against numbers worked out by hand, and what is written against what is read."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env
from torch import nn

from sb3_pave.evaluation.aggregate import aggregate
from sb3_pave.evaluation.intervals import FEWEST_RUNS
from sb3_pave.evaluation.report import new_report, run_record
from sb3_pave.evaluation.report_files import load_report, save_report
from sb3_pave.evaluation.robustness import evaluate_robustness
from sb3_pave.evaluation.rollout import Episode, Rollout, record_rollout
from sb3_pave.evaluation.rollout_geometry import rollout_geometry
from sb3_pave.evaluation.smoothness import smoothness_measures
from sb3_pave.evaluation.surface import SurfacePlane, field_surface, surface_plane
from sb3_pave.evaluation.tables import MEASURES, caption, episode_table, format_number, markdown, summary_table

pytest.importorskip("rliable")


def some_report(**episodes):
    """A report of one algorithm, its runs given as lists of returns."""
    report = new_report("Pendulum-v1", deterministic=True, seed=0, control_rate=1.0)
    for algorithm, runs in episodes.items():
        for i, returns in enumerate(runs):
            values = {name: list(returns) for name in MEASURES}
            report["runs"].append({"algorithm": algorithm, "run": f"run_{i}", "model": "", "episodes": values})
    return report


def test_the_interquartile_mean_is_of_the_middle_half_of_the_runs():
    """Runs count, not episodes: the fourth run's hundred episodes weigh no more than another's single one."""
    runs = [[-100.0], [1.0], [2.0], [3.0] * 100, [4.0, 4.0], [5.0], [6.0], [900.0]]
    result = aggregate(runs)
    assert result.iqm == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert result.mean == pytest.approx((-100 + 1 + 2 + 300 + 8 + 5 + 6 + 900) / 108)
    assert result.std == pytest.approx(np.std(np.concatenate(runs)))
    assert result.n_runs == 8
    assert -100 <= result.low < result.iqm < result.high <= 900


def test_the_interval_is_a_percentile_bootstrap_over_runs():
    rng = np.random.default_rng(0)
    means = rng.normal(size=20)
    result = aggregate([[mean] for mean in means])
    resampled = np.sort(rng.choice(means, (20_000, 20)), axis=1)[:, 5:15].mean(axis=1)
    np.testing.assert_allclose([result.low, result.high], np.quantile(resampled, [0.025, 0.975]), atol=0.06)
    np.random.random()  # whatever NumPy's generator has drawn meanwhile
    assert result == aggregate([[mean] for mean in means])


def test_every_measure_has_its_row():
    assert set(MEASURES) == {"return", "length", *smoothness_measures([0.0], -1, 1)}


def test_without_a_rate_there_is_no_row_in_hz():
    report = some_report(sac=[[1.0]])
    assert MEASURES["sm_hz"] not in summary_table(report).index
    report["settings"]["control_rate"] = 20.0
    assert MEASURES["sm_hz"] in summary_table(report).index


def test_a_label_may_hold_what_ends_a_cell():
    header, rule, *_ = markdown(some_report(**{"a|b": [[1.0]]})).splitlines()
    assert header == r"| measure | a\|b |" and rule == "| --- | --- |"
    assert markdown(some_report(measure=[[1.0]])).startswith("| measure | measure |\n")


def test_aggregating_leaves_numpys_generator_alone():
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    aggregate([[1.0], [2.0]])
    assert np.random.random() == expected


def test_values_that_are_not_defined_are_left_out():
    result = aggregate([[1.0, None], [None, math.nan], [3.0, 5.0]])
    assert (result.mean, result.n_runs) == (3.0, 2)
    assert result.iqm == pytest.approx((1.0 + 4.0) / 2)
    assert aggregate([[None]]).n_runs == 0 and math.isnan(aggregate([[None]]).mean)


def test_a_single_run_has_no_interval():
    result = aggregate([[1.0, 3.0]])
    assert (result.mean, result.std, result.iqm) == (2.0, 1.0, 2.0)
    assert math.isnan(result.low) and math.isnan(result.high)


@pytest.mark.parametrize("n_runs", [2, 3, 4, 5, 6])
def test_the_interval_of_few_runs_is_their_range_and_the_caption_says_so(n_runs):
    means = np.random.default_rng(n_runs).normal(size=n_runs)
    runs = [[mean] for mean in means]
    result = aggregate(runs)
    few = n_runs < FEWEST_RUNS
    assert few == np.allclose([result.low, result.high], [means.min(), means.max()])
    alone, beside = caption(some_report(sac=runs)), caption(some_report(sac=runs, td3=[[1.0]] * 6))
    assert ("range of the runs" in alone) is few and ("95 % bootstrap interval" in alone) is not few
    assert "95 % bootstrap interval, of fewer than 5 runs their range" in beside
    assert "interquartile" not in caption(some_report(sac=[[1.0]]))


def test_the_table_has_a_column_an_algorithm():
    table = summary_table(some_report(sac=[[-150.0, -170.0]], pave_sac=[[1.0], [2.0]]))
    assert list(table.columns) == ["sac", "pave_sac"]
    assert table.loc["return", "sac"] == "-160 ± 10"
    assert table.loc["return", "pave_sac"].startswith("1.5 ± 0.5\n1.5 [1, 2]")
    assert table.loc["runs x episodes"].tolist() == ["1 x 2", "2 x 1"]
    lines = markdown(some_report(sac=[[1.0]])).splitlines()
    assert lines[0] == "| measure | sac |" and "deterministic" in lines[-1]


def test_a_run_that_lacks_a_measure_does_not_cost_the_others_theirs():
    report = some_report(sac=[[1.0], [2.0]], ppo=[[3.0]])
    first, second, _ = report["runs"]
    first["geometry"], second["geometry"] = {"M_sup": 5.0, "actor_jacobian_sup": 2.0}, {"actor_jacobian_sup": 4.0}
    second["robustness"] = [{"noise_level": level, "episodes": {"return": [7.0], "sm": [0.5]}} for level in (0.0, 0.1)]
    report["notes"] = ["sac run_1: no geometry of its critic: it is another's"]
    table = summary_table(report)
    assert table.loc["M, sup", "sac"] == "5\n(1 of 2 runs)"
    assert table.loc["‖∇_s π‖, sup", "sac"].startswith("3 ± 1\n3 [") and "runs" not in table.loc["‖∇_s π‖, sup", "sac"]
    assert table.loc["return, noise 0.1", "sac"] == "7 ± 0\n(1 of 2 runs)"
    assert table.loc["M, sup", "ppo"] == ""
    assert markdown(report).endswith("- sac run_1: no geometry of its critic: it is another's\n")


@pytest.mark.parametrize(("deterministic", "word"), [(True, "deterministic"), (False, "stochastic")])
def test_every_report_says_how_the_policy_acted(deterministic, word):
    report = some_report(sac=[[1.0]])
    report["settings"]["deterministic"] = deterministic
    assert word in caption(report)


@pytest.fixture(scope="module")
def measured():
    """A report with everything in it."""
    model = SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8], "activation_fn": nn.SiLU}, seed=0, device="cpu")
    env = make_vec_env("Pendulum-v1")
    plain = record_rollout(model, env, 2, seed=0)
    plane = surface_plane(model, plain, grid_size=4)
    report = new_report("Pendulum-v1", deterministic=True, seed=0, control_rate=20.0, noise_reference=None)
    noisy = evaluate_robustness(model, env, [0.0, 0.1], n_eval_episodes=1)
    geometry = rollout_geometry(model, plain)
    record = run_record("sac", "run_1", "sac.zip", plain, 20.0, 1.0, noisy, geometry, plane, field_surface(model, plane))
    report["runs"].append(record)
    return report, plain, geometry


def test_what_is_saved_is_what_was_measured(measured, tmp_path):
    report, plain, geometry = measured
    files = save_report(report, tmp_path / "out" / "pendulum")
    assert [file.name for file in files] == ["pendulum.json", "pendulum.csv", "pendulum_geometry.csv", "pendulum.md"]
    loaded = load_report(files[0])
    assert loaded == report
    (run,) = loaded["runs"]
    assert run["episodes"]["sm"] == plain.smoothness(20.0)["sm"].tolist()
    shares = [plain.smoothness(20.0, cutoff)["high_frequency_share"].tolist() for cutoff in (1.0, None)]
    assert run["episodes"]["high_frequency_share"] == shares[0] != shares[1]
    assert run["robustness"][0]["episodes"]["high_frequency_share"] == shares[0][:1]
    assert run["trace"]["actions"] == plain.episodes[0].actions.tolist()
    assert run["geometry"]["M_sup"] == geometry.summary()["M_sup"]
    assert np.shape(run["surface"]["heights"]) == (4, 4)

    episodes = pd.read_csv(files[1])
    assert episodes["noise_level"].isna().sum() == 2 and (episodes["noise_level"] == 0.1).sum() == 1
    np.testing.assert_allclose(episodes["sm"][:2], plain.smoothness(20.0)["sm"])
    assert pd.read_csv(files[2])["M_sup"][0] == pytest.approx(geometry.summary()["M_sup"])
    assert "M, sup" in files[3].read_text() and "noise 0.1" in files[3].read_text()


def test_nothing_is_overwritten_unasked(measured, tmp_path):
    save_report(measured[0], tmp_path / "pendulum")
    with pytest.raises(FileExistsError, match="--overwrite"):
        save_report(measured[0], tmp_path / "pendulum")
    save_report(some_report(sac=[[1.0]]), tmp_path / "pendulum", overwrite=True)
    assert not (tmp_path / "pendulum_geometry.csv").exists()


@pytest.mark.parametrize("content", ["not json", "[]", json.dumps({"format": 99, "runs": [1]})])
def test_another_file_is_not_taken_for_a_report(content, tmp_path):
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"report\.json"):
        load_report(path)


def test_a_surface_is_saved_with_its_own_axes():
    episode = Episode(np.zeros((2, 3)), np.zeros((2, 2)), np.zeros(2), 0.0, 2)
    rollout = Rollout([episode], spaces.Box(-1, 1, (2,)), True, 0)
    plane = SurfacePlane(np.array([1.0, 2, 3]), np.array([4.0, 5]), 2, 1, np.array([0.0, 1]), np.array([-1.5, 0, 1.5]))
    heights = np.arange(6.0).reshape(2, 3)
    saved = run_record("sac", "run_1", "sac.zip", rollout, plane=plane, heights=heights)["surface"]
    assert saved == {**{name: np.asarray(value).tolist() for name, value in vars(plane).items()}, "heights": heights.tolist()}


def test_episodes_are_counted_from_0_at_each_noise_level():
    report = some_report(sac=[[1.0, 2.0]])
    report["runs"][0]["robustness"] = [{"noise_level": 0.1, "episodes": {"return": [3.0, 4.0]}}]
    table = episode_table(report)
    assert table["episode"].tolist() == [0, 1, 0, 1] and table["return"].tolist() == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(("value", "shown"), [(-1234.6, "-1235"), (1234.6, "1235"), (-123.46, "-123"), (0.012345, "0.0123")])
def test_a_number_has_three_digits_and_all_before_the_point(value, shown):
    assert format_number(value) == shown


def test_the_caption_says_what_the_deviation_of_the_geometry_is_of():
    report = some_report(sac=[[1.0], [2.0]], td3=[[1.0]])
    first, second, other = report["runs"]
    first["geometry"] = other["geometry"] = {"M_sup": 1.0}
    assert "of the geometry over runs" not in caption(report)
    second["geometry"] = {"M_sup": 2.0}
    assert "over episodes, of the geometry over runs;" in caption(report)


@pytest.mark.parametrize(("reference", "scale"), [(None, "each agent's own"), ("td3", "those of td3")])
def test_the_caption_says_whose_observations_the_noise_is_scaled_by(reference, scale):
    report = some_report(sac=[[1.0]])
    report["settings"]["noise_reference"] = reference
    assert "Noise" not in caption(report)
    report["runs"][0]["robustness"] = []
    assert caption(report).endswith(f"Noise is in standard deviations of the observations, {scale}.")
