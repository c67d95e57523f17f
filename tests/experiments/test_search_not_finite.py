"""Runs whose return or sm is no finite number: they cost a trial, and not the search."""

import math

import pytest
from optuna.trial import TrialState

from sb3_pave.experiments import grid
from sb3_pave.experiments.files import write_json
from sb3_pave.experiments.search import SearchError
from sb3_pave.experiments.search_specification import SearchSpecification
from sb3_pave.experiments.study import SearchStudy
from sb3_pave.experiments.trial_measures import NotFinite, Scale, measure, read_measures
from tests.experiments import formulas
from tests.experiments.fabricated import fabricated_result, write_result
from tests.experiments.formulas import SPECIFICATION, FormulaJob, quick, values_at


@pytest.fixture
def specification(monkeypatch):
    monkeypatch.setattr(grid, "Job", FormulaJob)
    return SearchSpecification.from_dict(SPECIFICATION)


@pytest.mark.parametrize(("bad", "name"), [((math.nan, 1.0), "return"), ((-100.0, math.inf), "sm")])
def test_a_trial_that_is_not_finite_has_failed_and_the_search_goes_on(specification, tmp_path, monkeypatch, bad, name):
    monkeypatch.setattr(formulas, "values_at", lambda weight, seed: bad if weight == 0.1 else values_at(weight, seed))
    searched = quick(specification, tmp_path, 3)  # the published weight is the first
    assert [trial["number"] for trial in searched["trials"]] == [1, 2] and searched["n_failed"] == 1
    first = SearchStudy(tmp_path).trials()[0]
    assert first.state is TrialState.FAIL
    assert f"the {name} of {tmp_path / 'runs' / 'Pendulum-v1-searched-seed1'}" in first.user_attrs["error"]
    assert first.user_attrs["error"].endswith("is not finite")


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_a_mean_that_is_not_finite_is_no_measure_either(tmp_path):
    write_json(tmp_path / "result.json", fabricated_result("searched", 1, [1.0], [1e308]))
    with pytest.raises(NotFinite, match="the mean sm over 2 runs is not finite"):
        measure([read_measures(tmp_path)] * 2, {})


def test_a_plain_agent_that_is_not_finite_is_said(specification, tmp_path, monkeypatch):
    monkeypatch.setattr(formulas, "values_at", lambda weight, seed: (math.nan, 1.0) if seed == 2 else values_at(weight, seed))
    for _ in range(2):
        with pytest.raises(SearchError, match=r"have diverged: the return of .*plain-seed2.* is not finite\. Mend plain"):
            quick(specification, tmp_path, 1)


def test_a_damaged_result_is_not_called_infinite(tmp_path):
    for damaged in ({"evaluation": None}, {"evaluation": {"episodes": {"return": 3, "sm": [1.0]}}}):
        write_json(tmp_path / "result.json", fabricated_result("searched", 1, [1.0], [1.0], **damaged))
        with pytest.raises(ValueError, match="is no whole result") as raised:
            read_measures(tmp_path)
        assert not isinstance(raised.value, NotFinite)


def test_one_whole_run_is_measured_as_it_is(tmp_path):
    write_json(tmp_path / "result.json", fabricated_result("searched", 1, [1.0, 3.0], [0.5, 0.5]))
    measured = measure([read_measures(tmp_path)], {})
    assert (measured["return"], measured["sm"], measured["episode_std"]) == (2.0, 0.5, 1.0)


def test_of_several_environments_a_run_counts_as_a_share_of_the_plain_agents(tmp_path):
    scales = {"Pendulum-v1": Scale(-100.0, 1.0), "Other-v0": Scale(50.0, 0.25)}
    results = [
        fabricated_result("searched", 1, [total - 20.0, total + 20.0], [0.5, 0.5], environment=name)
        for name, total in (("Pendulum-v1", -102.0), ("Other-v0", 100.0))
    ]
    measured = measure([read_measures(write_result(tmp_path, one).parent) for one in results], scales)
    assert measured["returns"] == [pytest.approx(0.98), 2.0] and measured["sms"] == [0.5, 2.0]
    assert (measured["return"], measured["sm"]) == (pytest.approx(1.49), 1.25)
    assert measured["episode_std"] == pytest.approx((0.2 + 0.4) / 2)


def test_the_spread_of_episodes_is_that_of_the_run_in_the_middle(tmp_path):
    spreads = enumerate([1.0, 2.0, 30.0])
    results = [fabricated_result("searched", seed, [-spread, spread], [1.0, 1.0]) for seed, spread in spreads]
    assert measure([read_measures(write_result(tmp_path, one).parent) for one in results], {})["episode_std"] == 2.0
