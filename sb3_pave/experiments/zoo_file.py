"""The hyperparameters of a run, or of a trial of a search, as an entry in a YAML file of the zoo."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sb3_pave.evaluation.output_path import check_free
from sb3_pave.evaluation.plain_data import plain
from sb3_pave.experiments.runs import Run


def full_entry(run: Run, drawn: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """
    :param run: a run
    :param drawn: hyperparameters that a trial of a search has drawn, in place of the run's own; None: no trial is meant
    :return: all hyperparameters of the run, as an entry of a zoo YAML has them; arguments of the environment are added to
        those of the entry, as ``sb3-pave train`` does it
    """
    entries = {} if run.conf is None else yaml.safe_load(run.conf)
    layers = [entries.get(run.environment, entries.get("default", {})), plain(run.hyperparameters), plain(drawn or {})]
    entry = {name: value for layer in layers for name, value in layer.items()}
    if isinstance(entry.get("env_kwargs"), dict):
        entry["env_kwargs"] = {name: value for one in layers for name, value in (one.get("env_kwargs") or {}).items()}
    return {**entry, "n_timesteps": run.steps}


def zoo_yaml(searched: Mapping[str, Any], trial: Mapping[str, Any], runs: Sequence[Run]) -> str:
    """
    :param searched: a search, as :func:`sb3_pave.experiments.search_results.describe` has it
    :param trial: one of its ``trials``
    :param runs: the runs of the method without what was drawn
    :return: a YAML file that ``sb3-pave train -conf`` takes, with an entry for each environment
    """
    entries = {run.environment: full_entry(run, trial["hyperparameters"]) for run in runs}
    measured = f"return {trial['return']:.4g}, sm {trial['sm']:.4g}, mean over {searched['n_runs']} runs"
    head = f"# Trial {trial['number']} of a search with sb3-pave tune: {measured}.\n# {train_command(runs[0], 'FILE')}\n"
    return head + yaml.safe_dump(entries, sort_keys=False)


def train_command(run: Run, conf: str | Path) -> str:
    """
    :param run: a run of the method
    :param conf: the file that :func:`zoo_yaml` was written to
    :return: what to type to train on the run's environment with it
    """
    packages = ["--gym-packages", *run.gym_packages] if run.gym_packages else []
    return shlex.join(["sb3-pave", "train", "--algo", run.algorithm, "--env", run.environment, "-conf", str(conf), *packages])


def export(
    searched: Mapping[str, Any], trial: Mapping[str, Any], runs: Sequence[Run], path: str | Path, overwrite: bool = False
) -> None:
    """
    Write :func:`zoo_yaml` into a file. One that holds the same already stays as it is.

    :param searched: a search
    :param trial: one of its ``trials``
    :param runs: the runs of the method without what was drawn
    :param path: the file
    :param overwrite: whether it may exist
    :raises FileExistsError: if it exists, holds something else and may not
    """
    path, text = Path(path), zoo_yaml(searched, trial, runs)
    if path.is_file() and path.read_bytes() == text.encode():
        return
    check_free([path], overwrite, "--export-to")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
