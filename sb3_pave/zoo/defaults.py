"""Which hyperparameters an environment gets when the user gave no ``-conf``."""

import functools
import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import rl_zoo3
import yaml
from huggingface_sb3 import EnvironmentName
from rl_zoo3.exp_manager import ExperimentManager

import sb3_pave
from sb3_pave.zoo.algorithms import ZOO_ALGORITHMS, ZOO_RIVALS
from sb3_pave.zoo.files import hyperparams_folder
from sb3_pave.zoo.rivals import rival_entry, rival_file

# By name: the host of each of our algorithms, and PAVE's rivals
_HOSTS = {algorithm.name: algorithm.host for algorithm in ZOO_ALGORITHMS}
_RIVALS = {rival.name: rival for rival in ZOO_RIVALS}


class Entry(NamedTuple):
    """
    An entry in a file of hyperparameters.

    :param file: a YAML file in the zoo's format
    :param key: an environment id that it lists, or "default"
    """

    file: Path
    key: str


def find_entry(name: str, host: str, env_id: str) -> Entry:
    """
    Our own entry for the environment, else the zoo's entry of the host; else, by the same order, that of another
    version of the environment (the zoo lists MuJoCo's v4 and the first Fetch environments); else our ``default``.

    :param name: name of the PAVE algorithm
    :param host: the zoo's name of the algorithm that it extends
    :param env_id: id of the environment
    :return: where the hyperparameters are
    """
    ours = hyperparams_folder(sb3_pave.__file__) / f"{name}.yml"
    zoos = hyperparams_folder(rl_zoo3.__file__) / f"{host}.yml"
    env_ids = {file: set(yaml.safe_load(file.read_text())) - {"default"} for file in (ours, zoos)}
    for file, listed in env_ids.items():
        if env_id in listed:
            return Entry(file, env_id)
    for file, listed in env_ids.items():
        if versions := [other for other in listed if _split_version(other)[0] == _split_version(env_id)[0]]:
            return Entry(file, max(versions, key=_split_version))
    return Entry(ours, "default")


def default_hyperparameters(algo: str, env_id: str) -> dict[str, Any]:
    """
    What ``train`` uses when the user gives no ``-conf``.

    :param algo: an algorithm of the zoo or of ours
    :param env_id: id of the environment
    :raises KeyError: if the algorithm's file has neither an entry for the environment nor a default
    :raises OSError: if there is no such file
    """
    if algo in _RIVALS:
        rival = _RIVALS[algo]
        return rival_entry(rival, *find_entry(f"pave_{rival.host}", rival.host, env_id), env_id)
    if algo in _HOSTS:
        file, key = find_entry(algo, _HOSTS[algo], env_id)
        return yaml.safe_load(file.read_text())[key]
    entries = yaml.safe_load((hyperparams_folder(rl_zoo3.__file__) / f"{algo}.yml").read_text())
    return entries[env_id if env_id in entries else "default"]


def _split_version(env_id: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.+)-v(\d+)", env_id)
    return (match[1], int(match[2])) if match else (env_id, -1)


def provide_defaults() -> None:
    """
    Have the zoo read the hyperparameters of our algorithms from where they are; idempotent.

    The zoo looks for ``{algo}.yml`` in its own folder only. A file that the user names is read by the zoo as it is.
    """
    zoo_reads = ExperimentManager.read_hyperparameters
    if hasattr(zoo_reads, "provides_pave_defaults"):
        return

    @functools.wraps(zoo_reads)
    def read_hyperparameters(self: ExperimentManager) -> tuple[dict[str, Any], dict[str, Any]]:
        zoos_choice = hyperparams_folder(rl_zoo3.__file__) / f"{self.algo}.yml"
        if self.algo not in {**_HOSTS, **_RIVALS}:
            return zoo_reads(self)
        if Path(self.config) != zoos_choice:
            hyperparams, saved_hyperparams = zoo_reads(self)
            _make_env_kwargs_known(self, {}, hyperparams, saved_hyperparams)
            return hyperparams, saved_hyperparams
        env_name = self.env_name
        rival = _RIVALS.get(self.algo)
        if rival is None:
            entry = find_entry(self.algo, _HOSTS[self.algo], env_name.gym_id)
            file: AbstractContextManager[Path] = nullcontext(entry.file)
        else:
            # The protocol, and PAVE's weights, stand in the PAVE algorithm's file
            entry = find_entry(f"pave_{rival.host}", rival.host, env_name.gym_id)
            file = rival_file(rival, entry.file, entry.key, env_name.gym_id)
        if entry.key != env_name.gym_id:
            print(f"No hyperparameters for {env_name.gym_id}: using those of {entry.key}")
        self.env_name = EnvironmentName(entry.key)
        try:
            with file as path:
                self.config = str(path)
                hyperparams, saved_hyperparams = zoo_reads(self)
        finally:
            self.env_name = env_name
            self.config = str(entry.file)
        ours = yaml.safe_load(entry.file.read_text())[entry.key].get("env_kwargs", {})
        _make_env_kwargs_known(self, ours, hyperparams, saved_hyperparams)
        return hyperparams, saved_hyperparams

    read_hyperparameters.provides_pave_defaults = True  # type: ignore[attr-defined]
    ExperimentManager.read_hyperparameters = read_hyperparameters  # type: ignore[assignment, method-assign]


def _make_env_kwargs_known(manager: ExperimentManager, ours: dict[str, Any], *hyperparams: dict[str, Any]) -> None:
    """
    Treat ``env_kwargs`` of a file as if they had been typed after ``--env-kwargs``: the zoo passes those of a file to
    the training environment alone, not to the evaluation environment, to ``record_video`` or to ``push_to_hub``.

    :param manager: the experiment
    :param ours: those of our own entry, without which its algorithm does not fit the environment: what was typed is added
    :param hyperparams: as the zoo has read them
    """
    for params in hyperparams:
        if "env_kwargs" in params:
            # The zoo has put there what was typed, if anything was
            params["env_kwargs"] = {**ours, **params["env_kwargs"]}
            typed_for_evaluation = manager._eval_env_kwargs_args
            manager.eval_env_kwargs = {**ours, **typed_for_evaluation} if typed_for_evaluation else params["env_kwargs"]
            manager.env_kwargs = manager.args.env_kwargs = params["env_kwargs"]
