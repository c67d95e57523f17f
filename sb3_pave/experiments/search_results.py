"""A search as plain data, which tables and pictures are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial

from sb3_pave.experiments.search_specification import SearchSpecification
from sb3_pave.experiments.study import HYPERPARAMETERS, OUTCOME, SearchStudy
from sb3_pave.experiments.trial_measures import Scale, least_return

FORMAT = 1


def describe(
    specification: SearchSpecification, study: SearchStudy, scales: Mapping[str, Scale], keep_return: float | None
) -> dict[str, Any]:
    """
    What a search has come to.

    :param specification: what is searched
    :param study: its study
    :param scales: what the plain agent reaches, by environment
    :param keep_return: the share of its return that has to be kept
    :return: ``format``, ``environments``, ``algorithm``, ``n_runs`` of a trial, ``least_return`` (None without constraint),
        ``plain`` (its ``return`` and ``sm``, or None), ``n_failed`` and ``trials``: ``number``, ``hyperparameters``,
        ``return``, ``sm``, ``returns``, ``sms``, ``episode_std`` and ``feasible``
    """
    least = None if keep_return is None else least_return(scales, keep_return)
    trials = [described(trial) for trial in study.trials() if has_result(trial)]
    for trial in trials:
        trial["feasible"] = least is None or trial["return"] >= least
    reached = None
    if scales:
        (first, *others) = scales.values()
        reached = {"return": 1.0, "sm": 1.0} if others else {"return": first.total, "sm": first.sm}
    return {
        "format": FORMAT,
        **searched(specification),
        "least_return": least,
        "plain": reached,
        "n_failed": study.n_settled() - len(trials),
        "trials": trials,
    }


def searched(specification: SearchSpecification) -> dict[str, Any]:
    """
    :param specification: what is searched
    :return: ``environments``, ``algorithm`` and ``n_runs`` of a trial
    """
    (method,) = specification.grid.methods
    return {
        "environments": {environment.id: environment.steps for environment in specification.grid.environments},
        "algorithm": method.algorithm,
        "n_runs": len(specification.method_runs),
    }


def has_result(trial: FrozenTrial) -> bool:
    """
    :param trial: of a search
    :return: whether its runs were measured
    """
    return trial.state.name == "COMPLETE"


def described(trial: FrozenTrial) -> dict[str, Any]:
    """
    :param trial: one that has a result
    :return: what :func:`describe` says of it, but for ``feasible``
    """
    return {
        "number": trial.number,
        "hyperparameters": trial.user_attrs[HYPERPARAMETERS],
        **trial.user_attrs[OUTCOME],
    }
