"""What RL Zoo knows of the names in a specification: environments, algorithms, their hyperparameters and entries."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import yaml

from sb3_pave.evaluation.user_modules import why_not_imported
from sb3_pave.experiments.given import SpecificationError, unknown
from sb3_pave.experiments.named_classes import check_named_classes


def zoos_entry(where: str, algorithm: str, conf: Path | None, env_id: str) -> dict[str, Any]:
    """
    :param where: what an error calls the place
    :param algorithm: name of an algorithm in the zoo
    :param conf: a file in the zoo's format; None for that of the algorithm
    :param env_id: the environment
    :return: its entry in that file, or the file's default
    :raises SpecificationError: if the file can't be read, or has neither
    """
    from sb3_pave.zoo.defaults import default_hyperparameters

    try:
        if conf is None:
            return dict(default_hyperparameters(algorithm, env_id))
        entries = yaml.safe_load(conf.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        file = f"the file of {algorithm}" if conf is None else conf
        raise SpecificationError(f"{where}: {file} could not be read: {error}") from error
    except KeyError:
        entries = None
    entry = entries.get(env_id, entries.get("default")) if isinstance(entries, dict) else None
    if not isinstance(entry, dict):
        raise SpecificationError(
            f"{where}: {conf or algorithm} has no entry for {env_id}, and no default: give a conf file that has one"
        )
    return dict(entry)


def make_known(gym_packages: Collection[str]) -> None:
    """
    Register our algorithms and the environments of the zoo's and the user's packages.

    :param gym_packages: names of the user's modules
    :raises SpecificationError: if one of them can't be imported
    :raises ModuleNotFoundError: if RL Zoo is not installed
    """
    try:
        from sb3_pave.zoo import register
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('Grids need RL Zoo: pip install "sb3-pave[experiments]"', name=error.name) from error
    importlib.import_module("rl_zoo3.import_envs")
    register()
    for package in gym_packages:
        try:
            importlib.import_module(package)
        except Exception as error:  # whatever a module of the user raises
            raise SpecificationError(f"gym_packages: {package} could not be imported: {why_not_imported(error)}") from error


def check_environment(env_id: str) -> None:
    """
    :param env_id: the environment
    :raises SpecificationError: if it is not registered
    """
    if env_id not in gym.envs.registry:
        hint = "(gym_packages names modules that register environments)"
        raise SpecificationError(f"{unknown('environments', env_id, gym.envs.registry)} {hint}")


def check_as_made(where: str, env_id: str, hyperparameters: Mapping[str, Any]) -> None:
    """
    Nothing is said of an environment that can't be made here, perhaps not on this machine, and nothing of the actions of one
    whose wrappers may change them.

    :param where: what an error calls the place
    :param env_id: the environment
    :param hyperparameters: all of those that the run has
    :raises SpecificationError: if it does not take its ``env_kwargs``, or its actions are not continuous
    """
    env_kwargs = hyperparameters.get("env_kwargs") or {}
    try:
        space = action_space(env_id, env_kwargs)
    except TypeError as error:
        if env_kwargs and _can_be_made(env_id):
            raise SpecificationError(f"{where}: env_kwargs {env_kwargs}: {error}") from error
        return
    except Exception:
        return
    wrapped = hyperparameters.get("env_wrapper") or hyperparameters.get("vec_env_wrapper")
    if not wrapped and not isinstance(space, gym.spaces.Box):
        raise SpecificationError(
            f"{where}: the actions of {env_id} are {space}, and smoothness is measured of continuous ones alone: take an "
            "environment with a Box action space"
        )


def _can_be_made(env_id: str) -> bool:
    try:
        action_space(env_id, {})
    except Exception:
        return False
    return True


def action_space(env_id: str, env_kwargs: Mapping[str, Any], wrapper: Callable[[gym.Env], gym.Env] | None = None) -> gym.Space:
    """
    :param env_id: the environment
    :param env_kwargs: its arguments
    :param wrapper: what it is wrapped in; None for nothing
    :return: its actions; whatever the environment or the wrapper raises passes on
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its training repeats them
        env = gym.make(env_id, **env_kwargs)
        if wrapper is not None:
            env = wrapper(env)
    space = env.action_space
    env.close()
    return space


def check_algorithm(where: str, algorithm: str) -> None:
    """
    :param where: what an error calls the place
    :param algorithm: name of an algorithm
    :raises SpecificationError: if the zoo does not know it
    """
    from rl_zoo3.utils import ALGOS

    if algorithm not in ALGOS:
        raise SpecificationError(unknown(f"{where}: algorithm", algorithm, ALGOS))


def check_hyperparameters(where: str, algorithm: str, given: Mapping[str, Any]) -> None:
    """
    What neither the zoo nor the constructor takes is a mistake, and so are values that they refuse.

    :param where: what an error calls the place
    :param algorithm: name of an algorithm in the zoo
    :param given: hyperparameters
    :raises SpecificationError: if one of them is unknown, or has a value that no training can begin with
    """
    from rl_zoo3.utils import ALGOS

    from sb3_pave.zoo.checks import ZOO_KEYS, ZOOS_OWN
    from sb3_pave.zoo.constructors import accepted_names, constructor_parameters
    from sb3_pave.zoo.errors import ZooError
    from sb3_pave.zoo.values import check_values

    accepted = accepted_names(constructor_parameters(ALGOS[algorithm]))
    known = {*given} if accepted is None else (accepted | ZOO_KEYS) - ZOOS_OWN
    for name in given:
        if name not in known:
            raise SpecificationError(unknown(where, str(name), known))
    try:
        check_values(algorithm, given)
    except ZooError as error:
        raise SpecificationError(f"{where}: {error}") from error
    check_named_classes(where, given)
