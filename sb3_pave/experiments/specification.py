"""A grid as its user writes it down, and the runs that it stands for."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sb3_pave.evaluation.rollout import LARGEST_SEED
from sb3_pave.experiments.given import (
    SpecificationError,
    check_keys,
    check_unique,
    from_file,
    integer,
    is_number,
    strings,
    unknown,
)
from sb3_pave.experiments.gpus import DEVICES
from sb3_pave.experiments.runs import EvaluationSettings, Run
from sb3_pave.experiments.zoo_file import full_entry
from sb3_pave.experiments.zoo_knowledge import (
    check_algorithm,
    check_as_made,
    check_environment,
    check_hyperparameters,
    make_known,
    zoos_entry,
)

SECTIONS = (
    *("environments", "seeds", "steps", "methods", "evaluation"),
    *("gym_packages", "checkpoint_steps", "device", "threads"),
)
ENVIRONMENT_KEYS = ("steps", "seeds")
METHOD_KEYS = ("algorithm", "hyperparameters", "conf", "environments")
EVALUATION_KEYS = ("episodes", "every", "robustness", "robustness_episodes", "geometry", "seed")

# Without `every`, a run is evaluated so many times while it trains
EVALUATIONS = 20


@dataclass(frozen=True)
class Environment:
    """
    :param id: its id
    :param steps: training steps of each run on it
    :param seeds: the seeds
    """

    id: str
    steps: int
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Method:
    """
    :param name: as tables and pictures show it
    :param algorithm: name of the algorithm in the zoo
    :param hyperparameters: what differs from its file
    :param conf: the file, a zoo YAML; None for the zoo's own
    :param environments: the environments that it is tried on; None for all
    """

    name: str
    algorithm: str
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    conf: Path | None = None
    environments: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Specification:
    """
    Environments × seeds × methods.

    :param environments: the environments
    :param methods: the methods
    :param evaluation: how runs are measured; ``every`` of 0 for no evaluation while they train, None for 20 of them
    :param gym_packages: packages to import that register environments
    :param checkpoint_steps: steps between checkpoints; 0 for none
    :param device: PyTorch device
    :param threads: threads of each run
    """

    environments: tuple[Environment, ...]
    methods: tuple[Method, ...]
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    gym_packages: tuple[str, ...] = ()
    checkpoint_steps: int = 0
    device: str = "auto"
    threads: int = 1

    @classmethod
    def load(cls, path: str | os.PathLike) -> Specification:
        """
        :param path: a YAML file
        :return: the specification
        :raises SpecificationError: if the file can't be read, or as in :meth:`from_dict`
        """
        return from_file(path, cls.from_dict)

    @classmethod
    def from_dict(cls, content: Any, base_folder: str | os.PathLike = ".") -> Specification:
        """
        :param content: what the YAML file holds
        :param base_folder: what paths in it are relative to
        :return: the specification
        :raises SpecificationError: if a key, an algorithm, an environment or a hyperparameter is unknown, a file is missing,
            a value is out of range, or actions are not continuous
        """
        check_keys("the specification", content, SECTIONS, required=("environments", "methods"))
        gym_packages = tuple(strings("gym_packages", content.get("gym_packages", [])))
        environments = _environments(content)
        specification = cls(
            environments=environments,
            methods=_methods(content["methods"], Path(base_folder), [one.id for one in environments]),
            evaluation=_evaluation(content.get("evaluation")),
            gym_packages=gym_packages,
            checkpoint_steps=integer("checkpoint_steps", content.get("checkpoint_steps", 0), least=0),
            device=_device(content.get("device", "auto")),
            threads=integer("threads", content.get("threads", 1), least=1),
        )
        runs = specification.runs()  # the files of hyperparameters have to be there, and to know the environments
        for run in {(run.environment, run.method): run for run in runs}.values():
            check_as_made(f"methods: {run.method}", run.environment, full_entry(run))
        return specification

    def runs(self) -> list[Run]:
        """
        Seed by seed, so that every method has its first result early.

        :return: the runs
        :raises SpecificationError: if there are no hyperparameters for one of them
        """
        make_known(self.gym_packages)
        for environment in self.environments:
            check_environment(environment.id)
        confs = {
            (environment.id, method.name): self._conf(method, environment.id)
            for environment in self.environments
            for method in self.methods
            if method.environments is None or environment.id in method.environments
        }
        return [
            Run(
                environment=environment.id,
                method=method.name,
                algorithm=method.algorithm,
                seed=seed,
                steps=environment.steps,
                hyperparameters=method.hyperparameters,
                conf=confs[environment.id, method.name],
                evaluation=self._evaluation_of(environment),
                gym_packages=self.gym_packages,
                checkpoint_steps=self.checkpoint_steps,
                device=self.device,
                threads=self.threads,
            )
            for environment in self.environments
            for seed in environment.seeds
            for method in self.methods
            if (environment.id, method.name) in confs
        ]

    def _evaluation_of(self, environment: Environment) -> EvaluationSettings:
        every = self.evaluation.get("every")
        settings = {**self.evaluation, "every": max(environment.steps // EVALUATIONS, 1) if every is None else every}
        return EvaluationSettings(**settings)

    def _conf(self, method: Method, env_id: str) -> str:
        """The one entry of the method's file that the zoo would take, so that changes of others don't touch the run."""
        where = f"methods: {method.name}"
        check_algorithm(where, method.algorithm)
        entry = zoos_entry(where, method.algorithm, method.conf, env_id)
        entry.pop("n_timesteps", None)
        for name, given in (("hyperparameters", method.hyperparameters), ("conf", entry)):
            check_hyperparameters(f"{where}: {name}", method.algorithm, given)
        if "policy" not in {**entry, **method.hyperparameters}:
            raise SpecificationError(f"{where}: the entry for {env_id} names no policy, MlpPolicy for example")
        return yaml.safe_dump({env_id: entry})


def _environments(content: Mapping[str, Any]) -> tuple[Environment, ...]:
    given = content["environments"]
    given = given if isinstance(given, dict) else dict.fromkeys(strings("environments", given))
    environments = []
    for env_id, own in given.items():
        where = f"environments: {env_id}"
        if "." in str(env_id).rpartition("/")[2]:
            raise SpecificationError(
                f"{where}: SB3 takes what follows the dot for the ending of a file's name, so that nobody would find the "
                "agents. Register the environment under an id without a dot"
            )
        check_keys(where, own or {}, ENVIRONMENT_KEYS)
        own = {**{key: content[key] for key in ENVIRONMENT_KEYS if key in content}, **(own or {})}
        for key in ENVIRONMENT_KEYS:
            if key not in own:
                raise SpecificationError(f"{where}: {key} is missing, there and in the specification")
        seeds = own["seeds"]
        if not isinstance(seeds, list) or not seeds:
            raise SpecificationError(f"{where}: seeds takes a list of numbers, [1, 2, 3] for example; got {seeds!r}")
        seeds = tuple(integer(f"{where}: seeds", seed, 0, LARGEST_SEED) for seed in seeds)
        check_unique(f"{where}: seeds", seeds)
        environments.append(Environment(str(env_id), integer(f"{where}: steps", own["steps"], least=1), seeds))
    if not environments:
        raise SpecificationError("environments: there has to be at least one")
    return tuple(environments)


def _methods(given: Any, base_folder: Path, env_ids: Collection[str]) -> tuple[Method, ...]:
    given = given if isinstance(given, dict) else dict.fromkeys(strings("methods", given))
    if not given:
        raise SpecificationError("methods: there has to be at least one")
    return tuple(_method(str(name), own, base_folder, env_ids) for name, own in given.items())


def _method(name: str, given: Any, base_folder: Path, env_ids: Collection[str]) -> Method:
    """A mapping; an algorithm alone; or nothing, then the name is that of the algorithm."""
    where = f"methods: {name}"
    own = {"algorithm": given} if isinstance(given, str) else (given or {})
    check_keys(where, own, METHOD_KEYS)
    hyperparameters = own.get("hyperparameters") or {}
    if not isinstance(hyperparameters, dict):
        raise SpecificationError(f"{where}: hyperparameters takes a mapping; got {hyperparameters!r}")
    conf = own.get("conf")
    if conf is not None:
        conf = base_folder / str(conf)
        if conf.suffix not in (".yml", ".yaml") or not conf.is_file():
            raise SpecificationError(f"{where}: conf takes a YAML file in the zoo's format; {conf} is none, or not there")
    environments = own.get("environments")
    if environments is not None:
        environments = tuple(strings(f"{where}: environments", environments))
        if not environments:
            raise SpecificationError(f"{where}: environments: there has to be at least one; without the key it is all of them")
        for one in environments:
            if one not in env_ids:
                raise SpecificationError(unknown(f"{where}: environments", one, env_ids))
    algorithm = own.get("algorithm", name)
    return Method(name, str(algorithm), hyperparameters, conf, environments)


def _device(given: Any) -> str:
    if given not in DEVICES:
        raise SpecificationError(
            f"device takes {', '.join(DEVICES[:-1])} or {DEVICES[-1]} (--gpus says which GPUs); got {given!r}"
        )
    return given


def _evaluation(given: Any) -> dict[str, Any]:
    own = given or {}
    check_keys("evaluation", own, EVALUATION_KEYS)
    evaluation = dict(own)
    numbers = (("episodes", 1, None), ("every", 0, None), ("robustness_episodes", 1, None), ("seed", 0, LARGEST_SEED))
    for key, least, most in numbers:
        if key in own:
            evaluation[key] = integer(f"evaluation: {key}", own[key], least, most)
    levels = own.get("robustness") or []
    if not isinstance(levels, list) or not all(is_number(level) and 0 <= level < float("inf") for level in levels):
        raise SpecificationError(f"evaluation: robustness takes a list of noise levels, [0.1] for example; got {levels!r}")
    evaluation["robustness"] = tuple(float(level) for level in levels)
    if not isinstance(own.get("geometry", False), bool):
        raise SpecificationError(f"evaluation: geometry takes true or false; got {own['geometry']!r}")
    return evaluation
