"""
A search for hyperparameters that are smooth and lose no return, on the runner of grids.

A trial is a method with hyperparameters that Optuna has drawn, run with each seed on each environment. Its return and its
``sm`` are means over the runs; of several environments, means of what :func:`sb3_pave.experiments.report.return_share` and
the ratio of ``sm`` are on the scale of the plain agent.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial

from sb3_pave.evaluation.plain_data import plain
from sb3_pave.experiments.backends import check_backend
from sb3_pave.experiments.collection import Result
from sb3_pave.experiments.grid import run_grid
from sb3_pave.experiments.runs import Run
from sb3_pave.experiments.search_results import describe, described, has_result, searched
from sb3_pave.experiments.search_specification import SearchSpecification
from sb3_pave.experiments.study import (
    ERROR,
    HYPERPARAMETERS,
    OUTCOME,
    SPECIFICATION,
    SearchStudy,
    check_agreement,
    existing_study,
)
from sb3_pave.experiments.study_sampler import SamplerName
from sb3_pave.experiments.study_storage import STORAGE_ERRORS, why_failed
from sb3_pave.experiments.trial_measures import NotFinite, Scale, least_return, measure, read_measures
from sb3_pave.experiments.zoo_file import full_entry

RUNS_FOLDER = "runs"

# So many failed trials without a single good one are no bad luck
MAX_FAILURES = 5

# Seconds between two looks at trials that others work on, when there are no more to begin
POLL_INTERVAL = 5.0


class SearchError(RuntimeError):
    """A search that can't go on; the message says why."""


def search(
    specification: SearchSpecification,
    folder: str | os.PathLike,
    n_trials: int,
    keep_return: float | None = None,
    storage: str | None = None,
    study_name: str = "search",
    sampler: SamplerName = "tpe",
    sampler_seed: int | None = None,
    n_jobs: int = 1,
    backend: str = "threading",
    gpus: Sequence[str | int] = (),
    progress: bool = True,
) -> dict[str, Any]:
    """
    Carry a search on until it has so many trials. What was done before in the folder, or in the storage, counts. Several
    processes may work on one search, with one folder, or with a storage in common and a folder each.

    There are two objectives, return up and ``sm`` down; or, with ``keep_return``, one: ``sm`` down, while the return loses no
    more than a share of the plain agent's absolute value. With 0.98, trials may fall short of a return of 100 by 2, and of
    -100 by 2 as well.

    :param specification: what is searched
    :param folder: where runs and study go
    :param n_trials: trials, with those of before; one whose runs have failed counts
    :param keep_return: the share of the plain agent's return that has to be kept, above 0 and up to 1; None for two objectives
    :param storage: URL of an Optuna storage; None for a journal file in the folder
    :param study_name: name of the study in it
    :param sampler: ``tpe``, ``nsga2`` or ``random``
    :param sampler_seed: seed of the sampler
    :param n_jobs: runs at a time
    :param backend: see :func:`sb3_pave.experiments.grid.run_grid`
    :param gpus: see there
    :param progress: whether to say how far it is
    :return: the search as it is then, see :func:`sb3_pave.experiments.search_results.describe`
    :raises ValueError: if an argument is out of its range, or the study was begun with another specification
    :raises SearchError: if the plain agent's runs, the first trials or the storage have failed
    :raises ModuleNotFoundError: if a package of the backend is missing; the message says what to install
    :raises KeyboardInterrupt: when interrupted; the search goes on where it was
    """
    if keep_return is not None and not 0.0 < keep_return <= 1.0:
        raise ValueError(f"the share of the return that is kept lies above 0 and up to 1; got {keep_return}")
    if keep_return is not None and specification.plain is None:
        raise ValueError("keeping the return needs plain in the specification: the agent whose return is to be kept")
    if n_trials < 0:
        raise ValueError(f"the number of trials must not be negative; got {n_trials}")
    if n_jobs < 1:
        raise ValueError(f"the number of jobs must be at least 1; got {n_jobs}")
    if sampler_seed is not None and sampler_seed < 0:
        raise ValueError(f"the seed of the sampler must not be negative; got {sampler_seed}")
    check_backend(backend)
    folder = Path(folder)
    how: dict[str, Any] = {"n_jobs": n_jobs, "backend": backend, "gpus": gpus, "progress": progress}
    with _naming_the_storage(folder, storage):
        study = SearchStudy(folder, storage, study_name, keep_return is not None, sampler, sampler_seed)
        study.agree_on({**specification.to_dict(), "keep_return": keep_return})
        scales = _plain_scales(specification, folder / RUNS_FOLDER, how)
        if study.n_settled() < n_trials:
            study.start_with(_starting_point(specification))
        _Searching(specification, study, scales, keep_return, how).until(n_trials)
        return describe(specification, study, scales, keep_return)


def search_so_far(
    specification: SearchSpecification, folder: str | os.PathLike, storage: str | None = None, study_name: str = "search"
) -> dict[str, Any]:
    """
    What a search has found until now. Nothing is run, and nothing is written.

    :param specification: what is searched
    :param folder: where runs and study are
    :param storage: URL of an Optuna storage; None for the journal file in the folder
    :param study_name: name of the study in it
    :return: of what :func:`sb3_pave.experiments.search_results.describe` says, what needs no plain agent
    :raises ValueError: if the study lies elsewhere, or was begun with another specification
    :raises SearchError: if no trial has a result, or the storage has failed
    """
    with _naming_the_storage(Path(folder), storage):
        study = existing_study(Path(folder), storage, study_name)
        complete = [] if study is None else [trial for trial in study.get_trials(deepcopy=False) if has_result(trial)]
        begun_with = {} if study is None else study.user_attrs.get(SPECIFICATION, {})
    if not complete:
        if storage is None:
            raise SearchError(f"no trial has a result in {folder}; was it searched with --storage?")
        raise SearchError(f"no trial of the study {study_name} in the storage has a result")
    # How the trials were judged does not matter to what each of them is
    judged = {"keep_return": begun_with.get("keep_return")}
    check_agreement(begun_with, {**specification.to_dict(), **judged}, storage is not None)
    return {**searched(specification), "trials": [described(trial) for trial in complete]}


@contextlib.contextmanager
def _naming_the_storage(folder: Path, storage: str | None) -> Iterator[None]:
    try:
        yield
    except STORAGE_ERRORS as error:
        reason = why_failed(folder, storage, error)
        raise SearchError(f"{reason}; the same command goes on where it was") from error


def _unless_taken_over() -> contextlib.AbstractContextManager[None]:
    """Another process may have taken a trial over, for example while this machine slept; its result counts then."""
    return contextlib.suppress(UpdateFinishedTrialError)


class _Searching:
    """
    :param specification: what is searched
    :param study: the study
    :param scales: what the plain agent reaches, by environment
    :param keep_return: the share of its return that has to be kept
    :param how: arguments of ``run_grid``
    """

    def __init__(
        self,
        specification: SearchSpecification,
        study: SearchStudy,
        scales: Mapping[str, Scale],
        keep_return: float | None,
        how: Mapping[str, Any],
    ):
        self.specification, self.study, self.scales, self.keep_return = specification, study, scales, keep_return
        self.how = how
        self.folder = study.folder / RUNS_FOLDER
        n_jobs = min(how["n_jobs"], len(how["gpus"]) or how["n_jobs"])
        self.n_at_once = math.ceil(n_jobs / len(specification.method_runs))

    def until(self, n_trials: int) -> None:
        with self.study.alive():
            while self.study.n_settled() < n_trials:
                for number in self.study.revive():
                    self._say(f"Trial {number} has died: it is tried again")
                # In this order, lest one that ends meanwhile is neither of them
                missing = n_trials - self.study.n_running() - self.study.n_settled()
                if missing <= 0:  # if what others work on comes to nothing, it is revived or missing then
                    time.sleep(POLL_INTERVAL)
                    continue
                self._try(min(self.n_at_once, missing))
                self._check_failures()
                self._say(f"{self.study.n_settled()} of {n_trials} trials")

    def _try(self, n_trials: int) -> None:
        trials = self.study.ask(n_trials)
        try:
            self._carry_out(trials)
        except BaseException:
            self.study.give_back(trials)
            raise

    def _carry_out(self, trials: Sequence[Trial]) -> None:
        runs: dict[int, list[Run]] = {}
        for trial in trials:
            with _unless_taken_over():
                drawn = self.specification.space.sample(trial)
                trial.set_user_attr(HYPERPARAMETERS, plain(drawn))
                runs[trial.number] = self.specification.runs(drawn)
        if not runs:
            return
        different = {run.key: run for of_trial in runs.values() for run in of_trial}
        outcome = run_grid(list(different.values()), self.folder, **self.how)
        for trial in trials:
            if trial.number in runs:
                with _unless_taken_over():
                    self._settle(trial, runs[trial.number], outcome.errors)

    def _settle(self, trial: Trial, runs: Sequence[Run], errors: Mapping[str, str]) -> None:
        failed = [errors[run.key] for run in runs if run.key in errors]
        if failed:
            self.study.fail(trial, failed[0])
            return
        try:
            measured = measure(_results(runs, self.folder), self.scales)
        except NotFinite as error:
            self._say(f"Trial {trial.number} has failed: {error}")
            self.study.fail(trial, str(error))
            return
        trial.set_user_attr(OUTCOME, measured)
        loss = None if self.keep_return is None else self._missed(measured)
        self.study.tell(trial, measured["return"], measured["sm"], loss)

    def _missed(self, measured: Mapping[str, Any]) -> float:
        """By how much a return misses what has to be kept; not above 0 if it does not."""
        assert self.keep_return is not None
        return least_return(self.scales, self.keep_return) - measured["return"]

    def _check_failures(self) -> None:
        trials = self.study.trials()
        errors = [trial.user_attrs[ERROR] for trial in trials if ERROR in trial.user_attrs]
        if len(errors) >= MAX_FAILURES and not any(map(has_result, trials)):
            raise SearchError(f"the first {len(errors)} trials have all failed. The last one:\n{errors[-1]}")

    def _say(self, text: str) -> None:
        if self.how["progress"]:
            print(text, flush=True)


def _plain_scales(specification: SearchSpecification, folder: Path, how: Mapping[str, Any]) -> dict[str, Scale]:
    if specification.plain is None:
        return {}
    outcome = run_grid(specification.plain_runs, folder, **how)
    if outcome.failed:
        raise SearchError(f"a run of the plain agent has failed:\n{outcome.errors[outcome.failed[0].key]}")
    scales = {}
    for environment in specification.plain.environments:
        runs = [run for run in specification.plain_runs if run.environment == environment.id]
        try:
            measured = measure(_results(runs, folder), {})
        except NotFinite as error:
            raise SearchError(
                f"there is nothing to compare with, for the plain agent's runs have diverged: {error}. Mend plain or the "
                "environment; a run whose folder is removed is trained anew"
            ) from error
        scales[environment.id] = Scale(measured["return"], measured["sm"])
        if len(specification.plain.environments) > 1 and not (scales[environment.id].total and scales[environment.id].sm):
            raise SearchError(f"the plain agent's return or sm on {environment.id} is 0 and can't be a scale")
    return scales


def _results(runs: Sequence[Run], folder: Path) -> list[Result]:
    return [read_measures(folder / run.folder_name) for run in runs]


def _starting_point(specification: SearchSpecification) -> dict[str, Any]:
    """The hyperparameters that the method has without a search, the published ones for some."""
    return specification.space.starting_point(full_entry(specification.method_runs[0]))
