"""Studies that are not ours, storages that fail, and trials that two processes take at once."""

import sqlite3

import optuna
import pytest
from optuna.trial import Trial, TrialState

from sb3_pave.experiments import grid
from sb3_pave.experiments import search as searching
from sb3_pave.experiments.search import SearchError, search_so_far
from sb3_pave.experiments.search_specification import SearchSpecification
from sb3_pave.experiments.study import SearchStudy, check_agreement
from sb3_pave.experiments.study_storage import SEARCHER
from tests.experiments.formulas import SPECIFICATION, FormulaJob, quick

NOT_OURS = "the study search of sqlite:///.*s.db is not one of sb3-pave tune: choose another --study-name"


@pytest.fixture
def specification(monkeypatch):
    monkeypatch.setattr(grid, "Job", FormulaJob)
    return SearchSpecification.from_dict(SPECIFICATION)


@pytest.fixture
def storage(tmp_path):
    return f"sqlite:///{tmp_path}/s.db"


@pytest.mark.parametrize("n_trials", [0, 2])
@pytest.mark.parametrize("keep_return", [0.9, None])
def test_a_study_that_maximises_is_not_joined(specification, storage, tmp_path, keep_return, n_trials):
    foreign = optuna.create_study(storage=storage, study_name="search", direction="maximize")
    foreign.optimize(lambda trial: trial.suggest_float("gamma", 0.9, 0.99), n_trials)
    with pytest.raises(ValueError, match=NOT_OURS):
        quick(specification, tmp_path / "new", 1, storage=storage, keep_return=keep_return)
    assert len(foreign.trials) == n_trials
    quick(specification, tmp_path / "new", 1, storage=storage, study_name="mine")  # the folder is free for another


def test_a_study_with_the_trials_of_others_is_not_joined(specification, storage, tmp_path):
    foreign = optuna.create_study(storage=storage, study_name="search", directions=["maximize", "minimize"])
    foreign.optimize(lambda trial: (trial.suggest_float("gamma", 0.9, 0.99), 1.0), 1)
    with pytest.raises(ValueError, match=NOT_OURS):
        quick(specification, tmp_path / "new", 2, storage=storage)
    with pytest.raises(ValueError, match=NOT_OURS):
        search_so_far(specification, tmp_path / "new", storage)
    assert len(foreign.trials) == 1 and "specification" not in foreign.user_attrs


def test_a_search_that_another_process_has_just_begun_is_joined(specification, storage, tmp_path):
    SearchStudy(tmp_path / "first", storage)
    assert len(quick(specification, tmp_path / "second", 1, storage=storage)["trials"]) == 1


def test_to_look_for_a_search_makes_no_database(specification, storage, tmp_path):
    with pytest.raises(SearchError, match="no trial of the study search in the storage has a result"):
        search_so_far(specification, tmp_path / "new", storage)
    assert not any(tmp_path.iterdir())


def test_a_database_that_fails_during_the_search_is_a_sentence(specification, storage, tmp_path, monkeypatch):
    run_grid = searching.run_grid

    def loses_a_table(runs, *args, **kwargs):
        if runs[0].method == "searched":
            with sqlite3.connect(tmp_path / "s.db") as database:
                database.execute("drop table trial_user_attributes")
        return run_grid(runs, *args, **kwargs)

    monkeypatch.setattr(searching, "run_grid", loses_a_table)
    with pytest.raises(SearchError, match=r"s\.db failed: no such table.*; the same command goes on where it was") as raised:
        quick(specification, tmp_path / "search", 2, storage=storage)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("in_database", [False, True])
def test_a_trial_that_is_tried_again_has_no_signature_of_the_dead(storage, tmp_path, monkeypatch, in_database):
    first, other, third = (SearchStudy(tmp_path, storage if in_database else None) for _ in range(3))
    first.ask(1)  # never alive
    assert (other.revive() == [0]) is not in_database
    if in_database:
        dead = first.study.tell(0, state=TrialState.FAIL)
        other._storage.get_heartbeat_stale_trial_callback()(other.study, dead)
    assert [SEARCHER in trial.user_attrs for trial in other.trials()] == [True, False]
    sign, revived = Trial.set_user_attr, []

    def late(trial, name, value):
        revived.append(other.revive())
        sign(trial, name, value)

    monkeypatch.setattr(Trial, "set_user_attr", late)
    with third.alive():
        (again,) = third.ask(1)
        assert again.number == 1 and revived == [[]] and third.n_running() == 1


def test_a_trial_that_ended_before_it_was_signed_is_passed_over(tmp_path, monkeypatch):
    study, other = SearchStudy(tmp_path), SearchStudy(tmp_path)
    sign = Trial.set_user_attr

    def late(trial, name, value):
        if trial.number == 0:
            other.study.tell(0, state=TrialState.FAIL)
        sign(trial, name, value)

    monkeypatch.setattr(Trial, "set_user_attr", late)
    assert [trial.number for trial in study.ask(2)] == [1, 2]


def test_a_trial_that_was_taken_over_while_it_was_drawn_is_passed_over(specification, tmp_path, monkeypatch):
    sign = Trial.set_user_attr

    def late(trial, name, value):
        if (trial.number, name) == (0, "hyperparameters"):
            SearchStudy(tmp_path).study.tell(0, state=TrialState.FAIL)
        sign(trial, name, value)

    monkeypatch.setattr(Trial, "set_user_attr", late)
    assert [trial["number"] for trial in quick(specification, tmp_path, 1)["trials"]] == [1]


@pytest.mark.parametrize("specification", [{"a": 1}, {"a": 1, "b": 3}, {"a": 1, "b": 2, "c": 4}])
def test_a_study_goes_on_with_all_that_it_was_begun_with_and_nothing_else(specification):
    check_agreement({"a": 1, "b": 2}, {"a": 1, "b": 2}, False)
    with pytest.raises(ValueError, match=r"differ\. Search in another folder$"):
        check_agreement({"a": 1, "b": 2}, specification, False)
    with pytest.raises(ValueError, match=r"in another folder or under another study name$"):
        check_agreement({"a": 1, "b": 2}, specification, True)
