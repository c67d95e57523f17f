"""A trial's hyperparameters as a YAML file of the zoo."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sb3_pave.experiments.files import plain
from sb3_pave.experiments.runs import Run


def full_entry(run: Run, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param run: a run of the method
    :param hyperparameters: what a trial has drawn
    :return: all hyperparameters of the run with those in place, as an entry of a zoo YAML has them
    """
    import yaml

    entries = {} if run.conf is None else yaml.safe_load(run.conf)
    entry = entries.get(run.environment, entries.get("default", {}))
    return {**entry, **plain(run.hyperparameters), **plain(hyperparameters), "n_timesteps": run.steps}


def zoo_yaml(searched: Mapping[str, Any], trial: Mapping[str, Any], runs: list[Run]) -> str:
    """
    :param searched: a search, as :func:`sb3_pave.experiments.search.describe` has it
    :param trial: one of its ``trials``
    :param runs: the runs of the method without what was drawn
    :return: a YAML file that ``sb3-pave train -conf`` takes, with an entry for each environment
    """
    import yaml

    entries = {run.environment: full_entry(run, trial["hyperparameters"]) for run in runs}
    measured = f"return {trial['return']:.4g}, sm {trial['sm']:.4g}, mean over {searched['n_runs']} runs"
    command = f"sb3-pave train --algo {searched['algorithm']} --env {runs[0].environment} -conf FILE"
    head = f"# Trial {trial['number']} of a search with sb3-pave tune: {measured}.\n# {command}\n"
    return head + yaml.safe_dump(entries, sort_keys=False)


def export(
    searched: Mapping[str, Any], trial: Mapping[str, Any], runs: list[Run], path: str | Path, overwrite: bool = False
) -> None:
    """
    Write :func:`zoo_yaml` into a file.

    :param searched: a search
    :param trial: one of its ``trials``
    :param runs: the runs of the method without what was drawn
    :param path: the file
    :param overwrite: whether it may exist
    :raises FileExistsError: if it exists and may not
    """
    from sb3_pave.evaluation.output_path import check_free

    path = Path(path)
    check_free([path], overwrite, "--export-to")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(zoo_yaml(searched, trial, runs), encoding="utf-8")
