"""Searches, their runs replaced by formulas; and one exported file trained with for real."""

import contextlib
import json
import math
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from sb3_pave.commands import tune
from sb3_pave.commands.printing import print_frame
from sb3_pave.experiments import SpecificationError, grid, study_sampler, study_storage
from sb3_pave.experiments import search as searching
from sb3_pave.experiments.front import find_trial, pareto_front, pick
from sb3_pave.experiments.pictures import search_front
from sb3_pave.experiments.search import SearchError
from sb3_pave.experiments.search_files import front_caption, front_table, save_outcome
from sb3_pave.experiments.search_space import _host_space, make_space
from sb3_pave.experiments.search_specification import SearchSpecification
from sb3_pave.experiments.study import SearchStudy
from sb3_pave.experiments.study_place import without_password
from sb3_pave.experiments.trial_measures import Scale, least_return
from sb3_pave.zoo import register
from sb3_pave.zoo.search import WEIGHT_RANGES
from tests.experiments.formulas import SMALL, SPECIFICATION, FormulaJob, n_started, quick, values_at


@pytest.fixture(autouse=True)
def formulas(monkeypatch):
    """No run takes time."""
    monkeypatch.setattr(grid, "Job", FormulaJob)
    monkeypatch.setattr(FormulaJob, "fails_beyond", math.inf)


@pytest.fixture
def specification():
    return SearchSpecification.from_dict(SPECIFICATION)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ["sac"]}, "'methods' is not known"),
        ({"method": None}, "takes an algorithm"),
        ({"method": "pave_sacc"}, "pave_sac"),
        ({"search": {"mpr_koef": {"low": 0.1, "high": 1.0}}}, "mpr_coef"),
        ({"search": {"mpr_coef": {"low": 1.0, "high": 0.1}}}, "search: mpr_coef"),
        ({"search": {"mpr_coef": {"low": 0.0, "high": 1.0, "log": True}}}, "search: mpr_coef"),
        ({"search": {"mpr_coef": {"low": 1.0, "high": 1.0}}}, "search: mpr_coef: low and high are the same"),
        ({"search": {"mpr_coef": {"low": 0.1, "high": 1.0, "steps": 3}}}, r"\{low, high, log, int\}"),
        ({"search": {"mpr_coef": {"choices": []}}}, "choices"),
        ({"search": {"mpr_coef": {"choices": [[1]]}}}, "choices are numbers"),
        ({"search": ["mpr_coef"]}, "takes a mapping"),
        ({"search": {"mpr_coef": {"low": 0.1, "high": 1.0, "log": "no"}}}, "search: mpr_coef: log takes true or false"),
        ({"search": {"mpr_coef": {"low": 1, "high": 4, "int": "no"}}}, "search: mpr_coef: int takes true or false"),
        ({"search": {"mpr_coef": {"low": math.nan, "high": 1.0}}}, "search: mpr_coef: low and high have to be finite"),
        ({"search": {"mpr_coef": {"low": 1.0, "high": math.inf}}}, "search: mpr_coef: low and high have to be finite"),
        ({"search": {"mpr_coef": {"low": -1, "high": 1.0}}}, "search: mpr_coef must be finite and not negative, not -1"),
        ({"search": {"mpr_coef": {"choices": [0.1, "much"]}}}, "search: mpr_coef must be a number, not the text 'much'"),
        (
            {"search": {"pave_batch_size": {"low": 1, "high": 64}}},
            "search: pave_batch_size takes whole numbers: add int: true",
        ),
        ({"search": {"n_envs": {"low": 1, "high": 4}}}, "search: n_envs takes whole numbers: add int: true"),
        ({"search": {"batch_size": {"low": 16, "high": 64}}}, "search: batch_size takes whole numbers: add int: true"),
        ({"search": {"batch_size": {"low": 16.5, "high": 64, "int": True}}}, "have to be whole numbers, with int: true"),
        ({"search": {"pave_batch_size": {"choices": [0.5, 64]}}}, "search: pave_batch_size must be a positive whole number"),
        (
            {"search": {"pave_interval": {"low": 0, "high": 4, "int": True}}},
            "search: pave_interval must be a positive whole number",
        ),
        ({"method": "sac", "search": None}, "no weights of a method"),
        ({"host_space": "yes"}, "host_space takes true or false"),
        ({"method": "ppo", "search": {}, "host_space": True}, "more than plain data.*activation_fn"),
        ({"environments": ["Pendulum-v1", "MountainCarContinuous-v0"], "plain": None}, "several environments need plain"),
    ],
)
def test_a_mistake_in_the_specification_is_an_error_before_anything_starts(change, message):
    with pytest.raises(SpecificationError, match=message):
        SearchSpecification.from_dict({**SPECIFICATION, **change})


def test_by_default_the_weights_of_the_method_are_searched():
    space = make_space(None, "pave_sac", "Pendulum-v1", False)
    assert space.ranges == {name: FloatDistribution(*ends, log=True) for name, ends in WEIGHT_RANGES.items()}
    assert make_space(None, "damper_pave_td3", "Pendulum-v1", False).ranges.keys() == {*WEIGHT_RANGES, "eta"}
    assert make_space(None, "caps_sac", "Pendulum-v1", False).ranges.keys() == {"temporal_coef", "spatial_coef"}


def test_ranges_are_floats_whole_numbers_or_choices():
    given = {
        "mpr_coef": {"low": 0, "high": 2},
        "learning_rate": {"low": 1.0e-5, "high": 1.0e-3, "log": True},
        "batch_size": {"low": 32, "high": 512, "log": True, "int": True},
        "compile": {"choices": [True, False]},
    }
    register()
    space = make_space(given, "pave_sac", "Pendulum-v1", False)
    assert space.ranges == {
        "mpr_coef": FloatDistribution(0.0, 2.0),
        "learning_rate": FloatDistribution(1e-5, 1e-3, log=True),
        "batch_size": IntDistribution(32, 512, log=True),
        "compile": CategoricalDistribution([True, False]),
    }
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)).ask()
    assert space.sample(trial) == trial.params and trial.distributions == space.ranges


def test_the_space_of_the_host_is_the_zoos():
    specification = SearchSpecification.from_dict({**SPECIFICATION, "method": "pave_td3", "host_space": True, "plain": None})
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)).ask()
    drawn = specification.space.sample(trial)
    assert {"learning_rate", "gamma", "batch_size", "policy_kwargs", "mpr_coef"} <= drawn.keys()
    assert not {"one_minus_gamma", "net_arch", "batch_size_pow"} & drawn.keys()
    for run in specification.runs(drawn):  # neither the zoo nor the class refuses them
        assert run.hyperparameters == drawn


@pytest.mark.parametrize(("method", "named"), [("caps_td3", True), ("pave_td3", False)])
def test_the_space_of_the_host_keeps_the_activation_that_the_entry_names(method, named):
    content = {**SPECIFICATION, "method": method, "search": None, "host_space": True, "plain": None}
    drawn = SearchSpecification.from_dict(content).space.sample(
        optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)).ask()
    )
    policy_kwargs = drawn["policy_kwargs"]
    assert (isinstance(policy_kwargs, str) and policy_kwargs.endswith("activation_fn=nn.SiLU)")) is named
    assert "net_arch" in policy_kwargs


def test_a_range_counts_before_that_of_the_host():
    given = {"learning_rate": {"choices": [0.25, 0.5]}, "train_freq": {"low": 100, "high": 120, "int": True}}
    space = make_space(given, "pave_td3", "Pendulum-v1", True)
    drawn = space.sample(optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)).ask())
    assert drawn["learning_rate"] in (0.25, 0.5) and 100 <= drawn["train_freq"] <= 120
    assert drawn["gradient_steps"] == drawn["train_freq"]  # the zoo's, of the value that counts


def test_a_trial_of_the_hosts_space_is_the_same_when_it_is_tried_again(tmp_path):
    space = make_space({"learning_rate": {"low": 1e-4, "high": 3e-4}}, "pave_td3", "Pendulum-v1", True)
    study = SearchStudy(tmp_path)
    drawn = space.sample(study.ask(1)[0])
    assert study.revive() == [0]
    assert space.sample(study.ask(1)[0]) == drawn


def test_what_no_range_can_hold_is_no_part_of_the_starting_point():
    given = {
        "batch_size": {"choices": [64, 128]},
        "pave_batch_size": {"choices": [None, 64]},
        "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
        "ent_coef": {"low": 0.01, "high": 0.5},
        "gamma": {"low": 0.9, "high": 0.99},
        "mpr_coef": {"low": 0.01, "high": 10.0},
    }
    known = {"batch_size": 256, "pave_batch_size": 32, "learning_rate": "lin_7.3e-4", "ent_coef": "auto", "gamma": 0.999}
    space = make_space(given, "pave_sac", "Pendulum-v1", False)
    assert space.starting_point({**known, "mpr_coef": 0.1}) == {"mpr_coef": 0.1}


def test_trials_are_means_over_seeds_and_begin_with_the_hyperparameters_of_the_method(specification, tmp_path):
    searched = quick(specification, tmp_path, 6)
    trials = searched["trials"]
    assert [trial["number"] for trial in trials] == list(range(6)) and searched["n_runs"] == 2
    assert trials[0]["hyperparameters"] == {"mpr_coef": 0.1}  # the published one
    for trial in trials:
        totals, sms = zip(*(values_at(trial["hyperparameters"]["mpr_coef"], seed) for seed in (1, 2)), strict=True)
        np.testing.assert_allclose([trial["return"], trial["sm"]], [np.mean(totals), np.mean(sms)])
        assert trial["feasible"] and trial["episode_std"] == pytest.approx(20.0)
    assert searched["plain"] == {"return": -100.0, "sm": pytest.approx(1.005)}
    assert n_started(tmp_path) == 2 + 6 * 2


def test_the_front_is_optunas(specification, tmp_path):
    searched = quick(specification, tmp_path, 20, sampler="random")
    front = [trial["number"] for trial in pareto_front(searched["trials"])]
    study = SearchStudy(tmp_path).study
    assert sorted(front) == sorted(trial.number for trial in study.best_trials)
    assert 3 <= len(front) < 20
    sms = [find_trial(searched["trials"], number)["sm"] for number in front]
    assert sms == sorted(sms)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_under_the_constraint_the_return_is_kept(specification, tmp_path, sampler):
    """2 % of -100 may be lost: log10 of the weight may reach sqrt(0.2), where sm is 0.27."""
    searched = quick(specification, tmp_path, 24, keep_return=0.98, sampler=sampler, n_jobs=4)
    assert searched["least_return"] == pytest.approx(-102.0)
    for trial in searched["trials"]:
        assert trial["feasible"] == (math.log10(trial["hyperparameters"]["mpr_coef"]) <= math.sqrt(0.2))
    assert not all(trial["feasible"] for trial in searched["trials"])
    best = pick(searched, "smoothest")
    assert best["return"] >= -102.0
    assert best["sm"] == min(trial["sm"] for trial in searched["trials"] if trial["feasible"]) < 0.4
    (value,) = [trial for trial in SearchStudy(tmp_path, constrained=True).trials() if trial.number == best["number"]]
    assert value.values == [best["sm"]]


@pytest.mark.filterwarnings("ignore:`constraints_func`:FutureWarning")
def test_before_optuna_5_the_constraint_is_a_function(specification, tmp_path, monkeypatch):
    monkeypatch.setattr(study_sampler, "SETS_CONSTRAINTS", False)
    searched = quick(specification, tmp_path, 5, keep_return=0.98)
    trials = SearchStudy(tmp_path, constrained=True).trials()
    constraints = [trial.system_attrs["constraints"][0] for trial in trials]
    assert constraints == pytest.approx([-102.0 - trial["return"] for trial in searched["trials"]])


@pytest.mark.parametrize(("total", "least"), [(100.0, 98.0), (-100.0, -102.0)])
def test_what_has_to_be_kept_is_a_share_of_the_absolute_value(total, least):
    assert least_return({"env": Scale(total, 1.0)}, 0.98) == pytest.approx(least)
    assert least_return({"env": Scale(total, 1.0), "other": Scale(5.0, 1.0)}, 0.98) == 0.98


def test_several_environments_are_on_the_scale_of_the_plain_agent(tmp_path):
    environments = ["Pendulum-v1", "MountainCarContinuous-v0"]
    method = {"algorithm": "pave_sac", "hyperparameters": {**SMALL, "scale_free": False}}
    changes = {"environments": environments, "seeds": [1], "method": method}
    specification = SearchSpecification.from_dict({**SPECIFICATION, **changes})
    searched = quick(specification, tmp_path, 1, keep_return=0.9)
    (trial,) = searched["trials"]
    # 0.1 in both: return -100 as the plain agent's, sm 0.7 of its 1.0
    assert (trial["return"], trial["sm"]) == (1.0, pytest.approx(0.7)) and searched["plain"] == {"return": 1.0, "sm": 1.0}
    assert trial["episode_std"] == pytest.approx(0.2) and searched["least_return"] == 0.9 and searched["n_runs"] == 2


@pytest.mark.parametrize("reached", [(0.0, 1.0), (-100.0, 0.0)])
def test_a_plain_agent_at_zero_is_no_scale_of_several_environments(tmp_path, monkeypatch, reached):
    monkeypatch.setattr("tests.experiments.formulas.values_at", lambda weight, seed: reached)
    method = {"algorithm": "pave_sac", "hyperparameters": {**SMALL, "scale_free": False}}
    changes = {"environments": ["Pendulum-v1", "MountainCarContinuous-v0"], "seeds": [1], "method": method}
    with pytest.raises(SearchError, match="return or sm on Pendulum-v1 is 0 and can't be a scale"):
        quick(SearchSpecification.from_dict({**SPECIFICATION, **changes}), tmp_path, 1)


def test_a_search_goes_on_to_the_number_of_trials(specification, tmp_path):
    first = quick(specification, tmp_path, 3, n_jobs=4)  # two trials at once, then the one that is missing
    second = quick(specification, tmp_path, 5, n_jobs=4)
    assert len(first["trials"]) == 3
    assert second["trials"][:3] == first["trials"] and len(second["trials"]) == 5
    assert len({trial["hyperparameters"]["mpr_coef"] for trial in second["trials"]}) == 5
    before = n_started(tmp_path)
    assert quick(specification, tmp_path, 5) == second and n_started(tmp_path) == before


def test_trials_at_once_that_draw_the_same_share_their_runs(tmp_path):
    changed = SearchSpecification.from_dict({**SPECIFICATION, "search": {"mpr_coef": {"choices": [0.1]}}})
    first, second = quick(changed, tmp_path, 2, n_jobs=4)["trials"]
    assert first["returns"] == second["returns"] and n_started(tmp_path) == 2 + 2


def test_a_changed_specification_is_no_continuation(specification, tmp_path):
    quick(specification, tmp_path, 1)
    changed = SearchSpecification.from_dict({**SPECIFICATION, "seeds": [1, 2, 3]})
    with pytest.raises(ValueError, match="runs, plain differ"):
        quick(changed, tmp_path, 2)
    with pytest.raises(ValueError, match="without a constraint"):
        quick(specification, tmp_path, 2, keep_return=0.9)


@pytest.mark.parametrize(
    ("arguments", "message"), [({"keep_return": 1.5}, "1.5"), ({"n_jobs": 0}, "jobs"), ({"sampler_seed": -1}, "-1")]
)
def test_arguments_out_of_range_are_refused(specification, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        quick(specification, tmp_path, 1, **arguments)
    with pytest.raises(ValueError, match="trials must not be negative; got -1"):
        quick(specification, tmp_path, -1)
    without = SearchSpecification.from_dict({**SPECIFICATION, "plain": None})
    with pytest.raises(ValueError, match="needs plain"):
        quick(without, tmp_path, 1, keep_return=0.98)


def test_all_of_the_return_can_be_kept(specification, tmp_path):
    assert quick(specification, tmp_path, 0, keep_return=1.0)["least_return"] == -100.0


@pytest.mark.parametrize(("n_jobs", "gpus", "n_trials"), [(1, (), 1), (2, (), 1), (3, (), 2), (8, (), 4), (8, ("0", "1"), 1)])
def test_as_many_trials_are_tried_at_once_as_keep_the_jobs_busy(specification, tmp_path, n_jobs, gpus, n_trials):
    how = {"n_jobs": n_jobs, "gpus": gpus}
    assert searching._Searching(specification, SimpleNamespace(folder=tmp_path), {}, None, how).n_at_once == n_trials


def test_a_trial_whose_runs_fail_counts_and_is_said(specification, tmp_path, monkeypatch):
    monkeypatch.setattr(FormulaJob, "fails_beyond", 0.1)
    searched = quick(specification, tmp_path, 8, sampler="random")
    failed = [trial for trial in SearchStudy(tmp_path).trials() if trial.state is TrialState.FAIL]
    assert len(searched["trials"]) + searched["n_failed"] == 8 and searched["n_failed"] == len(failed) >= 5
    assert all(trial.params["mpr_coef"] > 0.1 and "diverged" in trial.user_attrs["error"] for trial in failed)
    monkeypatch.setattr(FormulaJob, "fails_beyond", 0.0)
    with pytest.raises(SearchError, match="the first 5 trials have all failed"):
        quick(specification, tmp_path / "another", 20)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_trial_is_the_next_one(specification, tmp_path, monkeypatch, error):
    quick(specification, tmp_path, 1)
    run_grid = searching.run_grid

    def interrupted(runs, *args, **kwargs):
        if runs[0].method == "searched":
            raise error
        return run_grid(runs, *args, **kwargs)

    monkeypatch.setattr(searching, "run_grid", interrupted)
    with pytest.raises(error):
        quick(specification, tmp_path, 2, sampler_seed=7)
    assert SearchStudy(tmp_path).trials()[-1].state is TrialState.WAITING
    monkeypatch.setattr(searching, "run_grid", run_grid)
    searched = quick(specification, tmp_path, 2)
    given_back, again = SearchStudy(tmp_path).trials()[1:]
    assert given_back.state is TrialState.FAIL and given_back.params == again.params
    assert [trial["number"] for trial in searched["trials"]] == [0, 2]


@pytest.mark.parametrize("fails", [False, True])
def test_a_trial_that_another_process_took_over_does_not_end_the_search(specification, tmp_path, monkeypatch, fails):
    run_grid = searching.run_grid

    def overtaken(runs, *args, **kwargs):
        other = SearchStudy(tmp_path)
        if runs[0].method == "searched" and len(other.trials()) == 1:
            other.study.tell(0, state=TrialState.FAIL)
        return run_grid(runs, *args, **kwargs)

    monkeypatch.setattr(searching, "run_grid", overtaken)
    monkeypatch.setattr(FormulaJob, "fails_beyond", 0.01 if fails else math.inf)
    quick(specification, tmp_path, 1)
    states = [trial.state for trial in SearchStudy(tmp_path).trials()]
    assert states == [TrialState.FAIL, TrialState.FAIL if fails else TrialState.COMPLETE]


def test_only_what_is_unfinished_is_given_back(tmp_path):
    study = SearchStudy(tmp_path)
    trials = study.ask(3)
    study.tell(trials[0], -100.0, 1.0, None)
    SearchStudy(tmp_path).study.tell(trials[1].number, state=TrialState.FAIL)
    study.give_back(trials)
    states = [trial.state for trial in study.trials()]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.FAIL, TrialState.WAITING]


def test_a_trial_that_is_given_back_before_it_has_drawn_keeps_what_it_was_to_draw(tmp_path):
    study = SearchStudy(tmp_path)
    study.study.enqueue_trial({"mpr_coef": 0.3})
    study.give_back(study.ask(1))
    (again,) = study.ask(1)
    assert again.number == 1 and again.suggest_float("mpr_coef", 0.01, 10.0) == 0.3


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_processes_with_one_seed_start_once_and_draw_different_trials(tmp_path, sampler):
    def drawn(folder, n_processes):
        studies_of = [SearchStudy(folder, sampler=sampler, seed=1) for _ in range(n_processes)]
        for study in studies_of:
            study.start_with({"mpr_coef": 0.1})
        trials = [studies_of[i % n_processes].ask(1)[0] for i in range(6)]
        return [(trial.suggest_float("mpr_coef", 0.01, 10.0), trial.suggest_float("eta", 0.0, 1.0)) for trial in trials]

    alone = drawn(tmp_path / "alone", 1)
    assert alone == drawn(tmp_path / "again", 1) == drawn(tmp_path / "three", 3)
    assert len(set(alone)) == 6 and [weight for weight, _ in alone].count(0.1) == 1 and alone[0][0] == 0.1


@pytest.mark.parametrize("dies", [False, True])
def test_no_more_trials_are_begun_than_asked_for(specification, tmp_path, monkeypatch, dies):
    quick(specification, tmp_path, 1)
    other = SearchStudy(tmp_path)
    with contextlib.ExitStack() as life:
        life.enter_context(other.alive())
        (trial,) = other.ask(1)
        trial.suggest_float("mpr_coef", 0.01, 10.0, log=True)

        def meanwhile(seconds):
            if dies:
                life.close()
                return
            trial.set_user_attr("hyperparameters", trial.params)
            trial.set_user_attr("outcome", {"return": -100.0, "sm": 1.0})
            other.tell(trial, -100.0, 1.0, None)

        monkeypatch.setattr(searching, "time", SimpleNamespace(sleep=meanwhile))
        searched = quick(specification, tmp_path, 2)
    assert [trial["number"] for trial in searched["trials"]] == ([0, 2] if dies else [0, 1])
    assert [trial.params for trial in other.trials()[1:]] == [trial.params] * (2 if dies else 1)


DYING = """
import sys, time
from pathlib import Path
from sb3_pave.experiments.study import SearchStudy
study = SearchStudy(Path(sys.argv[1]))
with study.alive():
    (trial,) = study.ask(1)
    trial.suggest_float("mpr_coef", 0.01, 10.0, log=True)
    print("asked", flush=True)
    time.sleep(600)
"""


def test_a_trial_whose_process_was_killed_is_tried_again(specification, tmp_path):
    quick(specification, tmp_path, 1)
    process = subprocess.Popen([sys.executable, "-c", DYING, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "asked\n"
        study = SearchStudy(tmp_path)
        assert study.revive() == [] and study.n_running() == 1  # it is alive
    finally:
        process.kill()
        process.communicate()
    searched = quick(specification, tmp_path, 2)
    dead, again = SearchStudy(tmp_path).trials()[1:]
    assert dead.state is TrialState.FAIL and again.state is TrialState.COMPLETE and dead.params == again.params
    assert [trial["number"] for trial in searched["trials"]] == [0, 2] and searched["n_failed"] == 0


def test_in_a_database_the_heartbeat_says_who_is_dead(specification, tmp_path, monkeypatch):
    monkeypatch.setattr(study_storage, "HEARTBEAT_INTERVAL", 1)
    monkeypatch.setattr(study_storage, "GRACE_PERIOD", 1)
    storage = f"sqlite:///{tmp_path}/search.db"
    quick(specification, tmp_path, 1, storage=storage)
    study = SearchStudy(tmp_path, storage)
    (trial,) = study.ask(1)
    params = {"mpr_coef": trial.suggest_float("mpr_coef", 0.01, 10.0, log=True)}
    time.sleep(2.5)  # nobody gives a sign of life for it
    searched = quick(specification, tmp_path / "another machine", 2, storage=storage)
    dead, again = study.trials()[1:]
    assert dead.state is TrialState.FAIL and again.params == params
    assert [trial["number"] for trial in searched["trials"]] == [0, 2]


def test_a_heartbeat_that_fails_is_not_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr("sb3_pave.experiments.study.HEARTBEAT", 0.01)
    other, study = (SearchStudy(tmp_path, f"sqlite:///{tmp_path}/search.db") for _ in range(2))
    other.ask(1)
    (own,) = study.ask(1)
    beats, third = [], threading.Event()

    def fails(trial_id):
        beats.append(trial_id)
        if len(beats) == 3:
            third.set()
        raise optuna.exceptions.StorageInternalError("the connection is lost for a moment")

    monkeypatch.setattr(study._storage, "record_heartbeat", fails)
    with study.alive():
        assert third.wait(10)
    assert set(beats) == {own._trial_id}  # not for those of another process


def test_a_trial_of_a_database_that_never_had_a_heartbeat_is_tried_again(tmp_path, monkeypatch):
    study = SearchStudy(tmp_path, f"sqlite:///{tmp_path}/search.db")
    with pytest.warns(UserWarning, match="Heartbeat of storage"):
        study.study.ask()  # and its process is killed
    assert study.revive() == []
    monkeypatch.setattr("sb3_pave.experiments.study.SIGNED_AFTER", 0)
    assert study.revive() == [0] and study.n_running() == 0


def some_search(points, least=None):
    trials = [
        {"number": i, "hyperparameters": {"mpr_coef": 0.1 * i}, "return": total, "sm": sm, "returns": [total], "sms": [sm]}
        for i, (total, sm) in enumerate(points)
    ]
    for trial in trials:
        trial.update(feasible=least is None or trial["return"] >= least, episode_std=50.0)
    description = {"environments": {"Pendulum-v1": 260}, "algorithm": "pave_sac", "n_runs": 1, "n_failed": 0}
    return {**description, "least_return": least, "plain": {"return": -100.0, "sm": 1.0}, "trials": trials}


def test_the_front_and_the_picks_by_hand():
    points = [(-100.0, 1.0), (-104.0, 0.3), (-120.0, 0.2), (-101.0, 1.1), (-104.0, 0.5), (-300.0, 0.1)]
    searched = some_search(points)
    assert [trial["number"] for trial in pareto_front(searched["trials"])] == [5, 2, 1, 0]
    # Within a tenth of the best return: -104, not -120
    assert pick(searched, "smoothest")["number"] == 1
    # Parts of the range of the front: returns 0, 0.9, 0.98, 1 less sms 0, 0.11, 0.22, 1
    assert pick(searched, "knee")["number"] == 2
    constrained = some_search(points, least=-120.0)
    assert [trial["number"] for trial in pareto_front(constrained["trials"])] == [2, 1, 0]
    assert pick(constrained, "smoothest")["number"] == 2
    assert pick(some_search([(1.0, 1.0)]), "knee")["number"] == 0
    with pytest.raises(ValueError, match="feasible"):
        pick(some_search(points, least=0.0), "knee")
    with pytest.raises(ValueError, match="no trial 9"):
        find_trial(searched["trials"], 9)
    with pytest.raises(ValueError, match="no trial of the search has a result"):
        find_trial([], 0)
    # Of trials with the same sm the better one, of equals the first
    assert [trial["number"] for trial in pareto_front(some_search([(1.0, 0.5), (2.0, 0.5), (2.0, 0.5)])["trials"])] == [1]
    table = front_table(searched).set_index("trial")
    assert list(table.index) == ["5", "2", "1", "0", "plain"] and table.loc["1", "mpr_coef"] == "0.1"


def test_the_picture_of_a_front_shows_every_trial():
    searched = some_search([(-100.0, 1.0), (-101.0, 0.3), (-101.5, 0.4), (-103.0, 0.2)], least=-102.0)
    (ax,) = search_front(searched).axes
    shown = {point for line in ax.lines[:-1] for point in zip(line.get_xdata(), line.get_ydata(), strict=True)}
    assert {(trial["sm"], trial["return"]) for trial in searched["trials"]} | {(1.0, -100.0)} == shown
    low, high = ax.get_ylim()
    assert high - low >= 50.0  # the standard deviation of episodes


def refused(capsys, *arguments, code=1):
    with pytest.raises(SystemExit) as stopped:
        tune.main([str(argument) for argument in arguments])
    assert stopped.value.code == code
    return capsys.readouterr().err


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def search_file(tmp_path):
    path = tmp_path / "search.yml"
    path.write_text(yaml.safe_dump(SPECIFICATION))
    return path


def test_to_export_from_a_folder_without_a_search_runs_and_writes_nothing(search_file, tmp_path, capsys):
    folder = tmp_path / "search"
    message = refused(capsys, search_file, "-o", folder, "--export", 0)
    assert f"no trial has a result in {folder}; was it searched with --storage?" in message
    assert not folder.exists()


def test_to_export_writes_the_trial_alone_also_of_a_search_under_a_constraint(search_file, tmp_path, capsys):
    folder = tmp_path / "search"
    tune.main([str(search_file), "-o", str(folder), "--no-progress", "--trials", "2", "--keep-return", "0.9"])
    before = contents(folder)
    tune.main([str(search_file), "-o", str(folder), "--export", "1"])
    assert contents(folder).items() - before.items() == {
        (folder / "pave_sac-trial-1.yml", (folder / "pave_sac-trial-1.yml").read_bytes())
    }
    assert before.items() <= contents(folder).items()
    assert "there is no trial 7 with a result; there are 0, 1" in refused(capsys, search_file, "-o", folder, "--export", 7)
    search_file.write_text(yaml.safe_dump({**SPECIFICATION, "seeds": [3]}))
    assert "runs, plain differ" in refused(capsys, search_file, "-o", folder, "--export", 1)


def test_a_search_in_a_database_is_not_taken_for_an_empty_one(search_file, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "search"
    command = [str(search_file), "-o", str(folder)]
    storage = ["--storage", "sqlite:///s.db", "--study-name", "mine"]
    tune.main([*command, *storage, "--trials", "2", "--no-progress"])
    before = contents(folder)
    others = [[], ["--storage", "sqlite:///t.db", "--study-name", "mine"], ["--storage", "sqlite:///s.db"]]
    for other in others:
        for doing in (["--export", "0"], ["--trials", "3"]):
            message = refused(capsys, *command, *other, *doing)
            assert f"--storage sqlite:///{tmp_path}/s.db --study-name mine" in message
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # where sqlite:///s.db is another file
    assert "s.db" in refused(capsys, *command, *storage, "--export", 0)
    assert contents(folder) == before and not (tmp_path / "t.db").exists()
    monkeypatch.chdir(tmp_path)
    tune.main([*command, *storage, "--export", "0"])
    assert (folder / "pave_sac-trial-0.yml").exists()


def test_the_search_in_a_folder_does_not_move_to_a_database(specification, tmp_path):
    quick(specification, tmp_path, 1)
    with pytest.raises(ValueError, match="journal in the folder"):
        quick(specification, tmp_path, 1, storage=f"sqlite:///{tmp_path}/s.db")


@pytest.mark.parametrize(
    ("url", "noted"),
    [
        ("postgresql://me:secret@host:5432/db?sslpassword=secret&mode=a", "postgresql://me@host:5432/db?mode=a"),
        ("sqlite:////data/s.db", "sqlite:////data/s.db"),
        ("sqlite://", "sqlite://"),
    ],
)
def test_where_a_study_lies_is_noted_without_a_password(url, noted):
    assert without_password(url) == noted


@pytest.mark.parametrize("storage", ["secret", "no.such.database://me:secret@host", "sqlite:////no/such/folder/s.db"])
def test_a_storage_that_cannot_be_opened_is_an_error(specification, tmp_path, storage):
    with pytest.raises(ValueError, match="storage") as raised:
        quick(specification, tmp_path, 1, storage=storage)
    assert "secret" not in str(raised.value)


def test_a_journal_that_was_cut_short_goes_on(tmp_path):
    """Its process died in the middle of a line: the trial of that line is tried again, and no other."""
    study = SearchStudy(tmp_path)
    (ended,) = study.ask(1)
    study.tell(ended, -100.0, 0.5, None)
    study.ask(1)
    journal = tmp_path / "search.journal"
    journal.write_bytes(journal.read_bytes()[:-40])
    again = SearchStudy(tmp_path)
    assert again.n_settled() == 1 and journal.read_bytes().endswith(b"\n")
    assert again.ask(1)[0].number >= 1

    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([lines[0], b"{no json\n", *lines[1:]]))
    with pytest.raises(ValueError, match=rf"{journal} could not be read: .*remove the line"):
        SearchStudy(tmp_path)


def test_a_front_is_not_replaced_by_an_empty_one(tmp_path):
    save_outcome(some_search([(-100.0, 1.0)]), tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="are of 1 that had: they stay as they are"):
        save_outcome(some_search([]), tmp_path)
    assert contents(tmp_path) == before
    (tmp_path / "another").mkdir()
    (tmp_path / "another" / "search.json").write_text("[1]")  # none of ours
    files = save_outcome(some_search([]), tmp_path / "another")
    assert [file.name for file in files] == ["search.json", "front.md", "front.csv"]


def test_what_is_saved_is_the_front(tmp_path):
    searched = some_search([(-100.0, 1.0), (-101.0, 0.3)])
    searched["trials"][0]["hyperparameters"]["net_arch"] = "small"
    searched["trials"][1]["hyperparameters"]["mpr_coef"] = 0.12345
    assert all(file.is_file() for file in save_outcome(searched, tmp_path))
    assert json.loads((tmp_path / "search.json").read_text()) == searched
    header, *rows = (tmp_path / "front.csv").read_text().splitlines()
    assert header == "trial,return,sm,mpr_coef,net_arch"
    assert rows == ["1,-101,0.3,0.123,", "0,-100,1,0,small", "plain,-100,1,,"]


def test_the_caption_says_what_the_front_is_of():
    searched = some_search([(1.0, 1.0), (2.0, 0.5)], least=0.0)
    caption = front_caption({**searched, "n_failed": 3})
    assert "Pareto front of 2 trials, 3 failed" in caption and "Feasible from a return of 0 on." in caption
    caption = front_caption({**searched, "least_return": None})
    assert "failed" not in caption and "Feasible" not in caption


def test_a_file_in_the_place_of_the_folder_is_called_one(search_file, capsys):
    for folder in (search_file, search_file / "inside"):
        assert f"{search_file} is a file, not a folder" in refused(capsys, search_file, "-o", folder, "--trials", 1)


def test_a_file_that_may_not_be_replaced_is_said_before_the_search(search_file, tmp_path, capsys):
    message = refused(capsys, search_file, "-o", tmp_path / "new", "--pick", "knee", "--export-to", search_file)
    assert "--overwrite" in message and not (tmp_path / "new").exists()
    inside = search_file / "tuned.yml"
    message = refused(capsys, search_file, "-o", tmp_path / "new", "--pick", "knee", "--export-to", inside, "--trials", 1)
    assert f"{inside} can't be written" in message and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--export-to", "tuned.yml"], "--export-to goes with --export or --pick"),
        (["--overwrite"], "--overwrite goes with --export or --pick"),
        (["--trials", "0"], "--trials must be at least 1"),
        (["--export", "0", "--trials", "3"], "--export runs nothing: leave out --trials"),
        (["--export", "0", "--keep-return", "0.9"], "--export runs nothing: leave out --keep-return"),
        (["--export", "0", "--sampler", "random"], "--export runs nothing: leave out --sampler"),
        (["--export", "0", "--sampler-seed", "0"], "--export runs nothing: leave out --sampler-seed"),
        (["--export", "0", "-j", "1"], "--export runs nothing: leave out --n-jobs"),
        (["--export", "0", "--backend", "loky"], "--export runs nothing: leave out --backend"),
        (["--export", "0", "--gpus", "0"], "--export runs nothing: leave out --gpus"),
        (["--export", "0", "--no-progress"], "--export runs nothing: leave out --no-progress"),
        (["--pick", "knee", "--export-to", "tuned.json"], "--export-to takes a name that ends in .yml or .yaml"),
        (["--export", "0", "--export-to", "tuned"], "--export-to takes a name that ends in .yml or .yaml"),
    ],
)
def test_what_would_be_ignored_is_an_error(search_file, tmp_path, capsys, arguments, message):
    assert message in refused(capsys, search_file, "-o", tmp_path / "new", *arguments, code=2)
    assert not (tmp_path / "new").exists()


def test_the_caption_is_a_paragraph_of_its_own(capsys):
    searched = some_search([(-100.0, 1.0)])
    print_frame(front_table(searched), front_caption(searched))
    printed = capsys.readouterr().out
    caption = printed[printed.index("pave_sac on Pendulum-v1") :]
    assert len(caption.splitlines()) <= 4  # a table of 40 columns would make 7 of it


def test_the_command_searches_and_its_file_trains_as_it_is(tmp_path, monkeypatch, capsys, sb3_pave_command):
    (tmp_path / "search.yml").write_text(yaml.safe_dump(SPECIFICATION))
    command = [str(tmp_path / "search.yml"), "-o", str(tmp_path / "search")]
    tune.main([*command, "--no-progress", "--trials", "4", "--pick", "smoothest", "--export-to", str(tmp_path / "tuned.yml")])
    printed = capsys.readouterr().out
    assert "plain" in printed and "mpr_coef" in printed
    assert {"search.json", "front.md", "front.csv", "front.png"} <= {path.name for path in (tmp_path / "search").iterdir()}
    started = n_started(tmp_path / "search")
    tune.main([*command, "--export", "0"])
    assert n_started(tmp_path / "search") == started
    (entry,) = yaml.safe_load((tmp_path / "search" / "pave_sac-trial-0.yml").read_text()).values()
    assert entry["mpr_coef"] == 0.1 and entry["n_timesteps"] == 260 and entry["learning_starts"] == 200
    tune.main([*command, "--export", "0"])  # which holds the same already
    (tmp_path / "search" / "pave_sac-trial-0.yml").write_text("# something else\n")
    with pytest.raises(SystemExit) as stopped:
        tune.main([*command, "--export", "0"])
    assert stopped.value.code == 1 and "--overwrite" in capsys.readouterr().err
    # As the command has said
    train = ("train", "--algo", "pave_sac", "--env", "Pendulum-v1", "-conf", str(tmp_path / "tuned.yml"))
    sb3_pave_command(*train, "--eval-freq", "-1", "--device", "cpu", "-f", str(tmp_path / "logs"))
    used = (tmp_path / "logs/pave_sac/Pendulum-v1_1/Pendulum-v1/config.yml").read_text()
    tuned = yaml.safe_load((tmp_path / "tuned.yml").read_text())["Pendulum-v1"]
    assert str(tuned["mpr_coef"]) in used and (tmp_path / "logs/pave_sac/Pendulum-v1_1/Pendulum-v1.zip").exists()


def test_the_ranges_of_a_front_are_from_the_lowest_run_to_the_highest():
    trial = {"number": 0, "hyperparameters": {}, "return": 2.0, "returns": [3.0, 1.0, 2.0], "sm": 0.2, "sms": [0.2, 0.3, 0.1]}
    table = front_table({"trials": [{**trial, "feasible": True}], "plain": None})
    assert table.loc[0, ["return", "sm"]].tolist() == ["2 [1, 3]", "0.2 [0.1, 0.3]"]


@pytest.mark.parametrize(("low", "high"), [(-0.5, 0.5), (0.5, 1.5)])
def test_both_ends_of_a_range_are_what_the_algorithm_takes(low, high):
    register()
    make_space({"eta": {"low": 0.0, "high": 1.0}}, "damper_td3", "Pendulum-v1", False)
    with pytest.raises(SpecificationError, match="eta"):
        make_space({"eta": {"low": low, "high": high}}, "damper_td3", "Pendulum-v1", False)


def test_the_space_of_the_host_knows_how_many_actions_there_are():
    register()
    pytest.importorskip("mujoco")
    assert _host_space("pave_td3", "Hopper-v5", {}).n_actions == 3
