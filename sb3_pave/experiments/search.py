"""
A search for hyperparameters that are smooth and lose no return, on the runner of grids.

A trial is a method with hyperparameters that Optuna has drawn, run with each seed on each environment. Its return and its
``sm`` are means over the runs; of several environments, means of what :func:`sb3_pave.experiments.report.return_share` and
the ratio of ``sm`` are on the scale of the plain agent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial

from sb3_pave.experiments.collection import Result, read_result
from sb3_pave.experiments.files import plain
from sb3_pave.experiments.grid import run_grid
from sb3_pave.experiments.report import return_share
from sb3_pave.experiments.results import RESULT_FILE
from sb3_pave.experiments.runs import Run
from sb3_pave.experiments.search_space import SearchSpace, make_space
from sb3_pave.experiments.specification import SECTIONS, Specification, SpecificationError, from_file
from sb3_pave.experiments.study import (
    HYPERPARAMETERS,
    OUTCOME,
    SamplerName,
    SearchStudy,
    check_agreement,
    existing_study,
)

KEYS = (*(section for section in SECTIONS if section != "methods"), "method", "search", "plain", "host_space")
RUNS_FOLDER = "runs"

FORMAT = 1

# So many failed trials without a single good one are no bad luck
MAX_FAILURES = 5

# Seconds between two looks at trials that others work on, when there are no more to begin
POLL_INTERVAL = 5.0


class SearchError(RuntimeError):
    """A search that can't go on; the message says why."""


@dataclass(frozen=True)
class SearchSpecification:
    """
    :param grid: environments, seeds and the rest, with the method that is searched as its only one
    :param space: what may change of it
    :param plain: the same grid with the agent that it is compared with; None for none
    """

    grid: Specification
    space: SearchSpace
    plain: Specification | None = None

    @classmethod
    def load(cls, path: str | os.PathLike) -> SearchSpecification:
        """
        :param path: a YAML file
        :return: the specification
        :raises SpecificationError: if the file can't be read, or as in :meth:`from_dict`
        """
        return from_file(path, cls.from_dict)

    @classmethod
    def from_dict(cls, content: Any, base_folder: str | os.PathLike = ".") -> SearchSpecification:
        """
        :param content: what the YAML file holds: the keys of a grid, ``method`` in place of ``methods`` (an algorithm, or a
            mapping with ``algorithm``, ``hyperparameters``, ``conf``); ``search``, see
            :func:`sb3_pave.experiments.search_space.make_space`; ``host_space``, whether the zoo's space of the host is
            searched as well; ``plain``, the method that it is compared with
        :param base_folder: what paths in it are relative to
        :return: the specification
        :raises SpecificationError: if a key, an algorithm or a hyperparameter is unknown, or a value is out of range
        """
        if not isinstance(content, dict):
            raise SpecificationError(f"the specification takes a mapping with {', '.join(KEYS)}; got {content!r}")
        unknown = [str(key) for key in content if key not in KEYS]
        if unknown:
            raise SpecificationError(f"the specification: {unknown[0]!r} is not known; known: {', '.join(KEYS)}")
        if "method" not in content:
            raise SpecificationError("the specification needs method: the algorithm that is searched, pave_td3 for example")
        if not isinstance(content.get("host_space", False), bool):
            raise SpecificationError(f"host_space takes true or false; got {content['host_space']!r}")
        common = {key: content[key] for key in SECTIONS if key in content}
        grid = _with_method(common, content["method"], "searched", base_folder)
        method, env_id = grid.methods[0], grid.environments[0].id
        space = make_space(content.get("search"), method.algorithm, env_id, content.get("host_space", False))
        searched = {**method.hyperparameters, **dict.fromkeys(space.ranges)}  # are they known?
        _with_method(common, {**_as_mapping(content["method"]), "hyperparameters": searched}, "searched", base_folder)
        against = None
        if content.get("plain") is not None:
            against = _with_method(common, content["plain"], "plain", base_folder)
        elif len(grid.environments) > 1:
            raise SpecificationError("several environments need plain, the agent whose return and sm are the scale of each")
        return cls(grid, space, against)

    def runs(self, hyperparameters: Mapping[str, Any]) -> list[Run]:
        """
        :param hyperparameters: what was drawn
        :return: the runs of that trial
        """
        (method,) = self.grid.methods
        drawn = dataclasses.replace(method, hyperparameters={**method.hyperparameters, **hyperparameters})
        return dataclasses.replace(self.grid, methods=(drawn,)).runs()

    def to_dict(self) -> dict[str, Any]:
        """:return: all that determines the results of trials, as JSON knows it"""
        described: dict[str, Any] = {
            "runs": sorted(run.key for run in self.grid.runs()),
            "plain": None if self.plain is None else sorted(run.key for run in self.plain.runs()),
            "search": {name: repr(values) for name, values in self.space.ranges.items()},
            "host_space": self.space.host is not None,
        }
        return plain(described)


@dataclass(frozen=True)
class Scale:
    """
    What the plain agent reaches on an environment.

    :param total: its mean return over the runs
    :param sm: its mean ``sm``
    """

    total: float
    sm: float


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
    :return: the search as it is then, see :func:`describe`
    :raises ValueError: if an argument is out of its range, or the study was begun with another specification
    :raises SearchError: if the plain agent's runs, or the first trials, have failed
    :raises KeyboardInterrupt: when interrupted; the search goes on where it was
    """
    if keep_return is not None and not 0.0 < keep_return <= 1.0:
        raise ValueError(f"the share of the return that is kept lies above 0 and up to 1; got {keep_return}")
    if keep_return is not None and specification.plain is None:
        raise ValueError("keeping the return needs plain in the specification: the agent whose return is to be kept")
    if n_trials < 0 or n_jobs < 1:
        raise ValueError(f"the numbers of trials and jobs must not be {n_trials} and {n_jobs}")
    if sampler_seed is not None and sampler_seed < 0:
        raise ValueError(f"the seed of the sampler must not be negative; got {sampler_seed}")
    folder = Path(folder)
    study = SearchStudy(folder, storage, study_name, keep_return is not None, sampler, sampler_seed)
    study.agree_on({**specification.to_dict(), "keep_return": keep_return})
    how: dict[str, Any] = {"n_jobs": n_jobs, "backend": backend, "gpus": gpus, "progress": progress}
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
    :return: ``environments``, ``algorithm``, ``n_runs`` of a trial and ``trials``, see :func:`describe`
    :raises ValueError: if the study lies elsewhere, or was begun with another specification
    :raises SearchError: if no trial has a result
    """
    study = existing_study(Path(folder), storage, study_name)
    complete = [] if study is None else [trial for trial in study.get_trials(deepcopy=False) if _has_result(trial)]
    if study is None or not complete:
        if storage is None:
            raise SearchError(f"no trial has a result in {folder}; was it searched with --storage?")
        raise SearchError(f"no trial of the study {study_name} in the storage has a result")
    begun_with = study.user_attrs.get("specification", {})
    # How the trials were judged does not matter to what each of them is
    judged = {"keep_return": begun_with.get("keep_return")}
    check_agreement(begun_with, {**specification.to_dict(), **judged}, storage is not None)
    return {**_searched(specification), "trials": [_described(trial) for trial in complete]}


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
        self.n_at_once = math.ceil(n_jobs / len(specification.grid.runs()))

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
            drawn = self.specification.space.sample(trial)
            trial.set_user_attr(HYPERPARAMETERS, plain(drawn))
            runs[trial.number] = self.specification.runs(drawn)
        different = {run.key: run for of_trial in runs.values() for run in of_trial}
        outcome = run_grid(list(different.values()), self.folder, **self.how)
        failed = {run.key for run in outcome.failed}
        for trial in trials:
            errors = [outcome.errors[run.key] for run in runs[trial.number] if run.key in failed]
            # Another process may have taken it over, for example while this machine slept; its result counts then
            with contextlib.suppress(UpdateFinishedTrialError):
                if errors:
                    self.study.fail(trial, errors[0])
                    continue
                measured = measure(_results(runs[trial.number], self.folder), self.scales)
                trial.set_user_attr(OUTCOME, measured)
                loss = None if self.keep_return is None else self.missed(measured)
                self.study.tell(trial, measured["return"], measured["sm"], loss)

    def missed(self, measured: Mapping[str, Any]) -> float:
        """By how much a return misses what has to be kept; not above 0 if it does not."""
        assert self.keep_return is not None
        return least_return(self.scales, self.keep_return) - measured["return"]

    def _check_failures(self) -> None:
        described = [(trial.state.name, trial.user_attrs.get("error")) for trial in self.study.trials()]
        errors = [error for _, error in described if error is not None]
        if len(errors) >= MAX_FAILURES and not any(state == "COMPLETE" for state, _ in described):
            raise SearchError(f"the first {len(errors)} trials have all failed. The last one:\n{errors[-1]}")

    def _say(self, text: str) -> None:
        if self.how["progress"]:
            print(text, flush=True)


def measure(results: Sequence[Result], scales: Mapping[str, Scale]) -> dict[str, Any]:
    """
    :param results: the runs of a trial
    :param scales: what the plain agent reaches, by environment; needed for more than one
    :return: ``return`` and ``sm`` of the trial; ``returns`` and ``sms`` of its runs; ``episode_std`` of the return
    """
    environments = dict.fromkeys(result.data["environment"] for result in results)
    returns = [result.values["return"] for result in results]
    sms = [result.values["sm"] for result in results]
    stds = [float(np.std(result.returns)) for result in results]
    if len(environments) > 1:
        of_run = [scales[result.data["environment"]] for result in results]
        returns = [return_share(total, scale.total) for total, scale in zip(returns, of_run, strict=True)]
        sms = [sm / scale.sm for sm, scale in zip(sms, of_run, strict=True)]  # type: ignore[operator]
        stds = [std / abs(scale.total) for std, scale in zip(stds, of_run, strict=True)]
    return plain(
        {
            "return": float(np.mean(returns)),  # type: ignore[arg-type]
            "sm": float(np.mean(sms)),  # type: ignore[arg-type]
            "returns": returns,
            "sms": sms,
            "episode_std": float(np.median(stds)),
        }
    )


def least_return(scales: Mapping[str, Scale], keep_return: float) -> float:
    """
    :param scales: what the plain agent reaches, by environment
    :param keep_return: the share of its return that has to be kept
    :return: the return that a trial has to reach; of several environments, the share
    """
    if len(scales) > 1:
        return keep_return
    (scale,) = scales.values()
    return scale.total - (1.0 - keep_return) * abs(scale.total)


def describe(
    specification: SearchSpecification, study: SearchStudy, scales: Mapping[str, Scale], keep_return: float | None
) -> dict[str, Any]:
    """
    The search as plain data, which tables and pictures are made of.

    :param specification: what is searched
    :param study: its study
    :param scales: what the plain agent reaches, by environment
    :param keep_return: the share of its return that has to be kept
    :return: ``format``, ``environments``, ``algorithm``, ``n_runs`` of a trial, ``least_return`` (None without constraint),
        ``plain`` (its ``return`` and ``sm``, or None), ``n_failed`` and ``trials``: ``number``, ``hyperparameters``,
        ``return``, ``sm``, ``returns``, ``sms``, ``episode_std`` and ``feasible``
    """
    least = None if keep_return is None else least_return(scales, keep_return)
    trials = [_described(trial) for trial in study.trials() if _has_result(trial)]
    for trial in trials:
        trial["feasible"] = least is None or trial["return"] >= least
    reached = None
    if scales:
        (first, *others) = scales.values()
        reached = {"return": 1.0, "sm": 1.0} if others else {"return": first.total, "sm": first.sm}
    return {
        "format": FORMAT,
        **_searched(specification),
        "least_return": least,
        "plain": reached,
        "n_failed": study.n_settled() - len(trials),
        "trials": trials,
    }


def _searched(specification: SearchSpecification) -> dict[str, Any]:
    (method,) = specification.grid.methods
    return {
        "environments": {environment.id: environment.steps for environment in specification.grid.environments},
        "algorithm": method.algorithm,
        "n_runs": len(specification.grid.runs()),
    }


def _has_result(trial: FrozenTrial) -> bool:
    return trial.state.name == "COMPLETE"


def _described(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "hyperparameters": trial.user_attrs[HYPERPARAMETERS],
        **trial.user_attrs[OUTCOME],
    }


def _plain_scales(specification: SearchSpecification, folder: Path, how: Mapping[str, Any]) -> dict[str, Scale]:
    if specification.plain is None:
        return {}
    runs = specification.plain.runs()
    outcome = run_grid(runs, folder, **how)
    if outcome.failed:
        raise SearchError(f"a run of the plain agent has failed:\n{outcome.errors[outcome.failed[0].key]}")
    scales = {}
    for environment in specification.plain.environments:
        results = _results([run for run in runs if run.environment == environment.id], folder)
        measured = measure(results, {})
        scales[environment.id] = Scale(measured["return"], measured["sm"])
        if len(specification.plain.environments) > 1 and not (scales[environment.id].total and scales[environment.id].sm):
            raise SearchError(f"the plain agent's return or sm on {environment.id} is 0 and can't be a scale")
    return scales


def _results(runs: Sequence[Run], folder: Path) -> list[Result]:
    return [read_result(folder / run.folder_name / RESULT_FILE) for run in runs]


def _starting_point(specification: SearchSpecification) -> dict[str, Any]:
    """The hyperparameters that the method has without a search, the published ones for some."""
    from sb3_pave.experiments.zoo_file import full_entry

    return specification.space.starting_point(full_entry(specification.grid.runs()[0], {}))


def _with_method(common: Mapping[str, Any], method: Any, name: str, base_folder: str | os.PathLike) -> Specification:
    own = _as_mapping(method)
    if not isinstance(own, dict) or "algorithm" not in own:
        raise SpecificationError(
            f"{name}: takes an algorithm, or a mapping with algorithm, hyperparameters, conf; got {method!r}"
        )
    return Specification.from_dict({**common, "methods": {name: own}}, base_folder)


def _as_mapping(method: Any) -> Any:
    return {"algorithm": method} if isinstance(method, str) else method
