"""A grid as its user writes it down, and the runs that it stands for."""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sb3_pave.experiments.runs import EvaluationSettings, Run

Made = TypeVar("Made")

SECTIONS = (
    *("environments", "seeds", "steps", "methods", "evaluation"),
    *("gym_packages", "checkpoint_steps", "device", "threads"),
)
ENVIRONMENT_KEYS = ("steps", "seeds")
METHOD_KEYS = ("algorithm", "hyperparameters", "conf", "environments")
EVALUATION_KEYS = ("episodes", "every", "robustness", "robustness_episodes", "geometry", "seed")

# Without `every`, a run is evaluated so many times while it trains
EVALUATIONS = 20

# Entries of the zoo's files that no constructor takes
ZOO_KEYS = frozenset(
    (
        *("n_envs", "normalize", "frame_stack", "env_wrapper", "vec_env_wrapper", "callback", "env_kwargs"),
        *("monitor_kwargs", "noise_type", "noise_std"),
    )
)


class SpecificationError(ValueError):
    """A specification that can't be run; the message names the key and says what is allowed."""


def from_file(path: str | os.PathLike, make: Callable[[Any, Path], Made]) -> Made:
    """
    :param path: a YAML file
    :param make: makes a specification of what the file holds, and of the folder that paths in it are relative to
    :return: what it makes
    :raises SpecificationError: if the file can't be read, or that of ``make`` with the file's name
    """
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpecificationError(f"{path} could not be read: {error}") from error
    try:
        return make(content, Path(path).parent)
    except SpecificationError as error:
        raise SpecificationError(f"{path}: {error}") from None


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
            or a value is out of range
        """
        _check_keys("the specification", content, SECTIONS, required=("environments", "methods"))
        gym_packages = tuple(_strings("gym_packages", content.get("gym_packages", [])))
        environments = _environments(content)
        device = content.get("device", "auto")
        if not isinstance(device, str) or ":" in device:
            raise SpecificationError(f"device takes auto, cpu, cuda or mps (--gpus says which GPUs); got {device!r}")
        specification = cls(
            environments=environments,
            methods=_methods(content["methods"], Path(base_folder), [one.id for one in environments]),
            evaluation=_evaluation(content.get("evaluation")),
            gym_packages=gym_packages,
            checkpoint_steps=_integer("checkpoint_steps", content.get("checkpoint_steps", 0), least=0),
            device=device,
            threads=_integer("threads", content.get("threads", 1), least=1),
        )
        specification.runs()  # the files of hyperparameters have to be there, and to know the environments
        return specification

    def runs(self) -> list[Run]:
        """
        Seed by seed, so that every method has its first result early.

        :return: the runs
        :raises SpecificationError: if there are no hyperparameters for one of them
        """
        _know(self.gym_packages)
        for environment in self.environments:
            _check_environment(environment.id)
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
        import yaml

        where = f"methods: {method.name}"
        _check_algorithm(where, method.algorithm)
        entry = _zoos_entry(method, env_id)
        entry.pop("n_timesteps", None)
        for name, given in (("hyperparameters", method.hyperparameters), ("conf", entry)):
            _check_hyperparameters(f"{where}: {name}", method.algorithm, given)
        if "policy" not in {**entry, **method.hyperparameters}:
            raise SpecificationError(f"{where}: the entry for {env_id} names no policy, MlpPolicy for example")
        return yaml.safe_dump({env_id: entry})


def _environments(content: Mapping[str, Any]) -> tuple[Environment, ...]:
    given = content["environments"]
    given = given if isinstance(given, dict) else dict.fromkeys(_strings("environments", given))
    environments = []
    for env_id, own in given.items():
        where = f"environments: {env_id}"
        if "." in str(env_id).rpartition("/")[2]:
            raise SpecificationError(
                f"{where}: SB3 takes what follows the dot for the ending of a file's name, so that nobody would find the "
                "agents. Register the environment under an id without a dot"
            )
        _check_keys(where, own or {}, ENVIRONMENT_KEYS)
        own = {**{key: content[key] for key in ENVIRONMENT_KEYS if key in content}, **(own or {})}
        for key in ENVIRONMENT_KEYS:
            if key not in own:
                raise SpecificationError(f"{where}: {key} is missing, there and in the specification")
        seeds = own["seeds"]
        if not isinstance(seeds, list) or not seeds:
            raise SpecificationError(f"{where}: seeds takes a list of numbers, [1, 2, 3] for example; got {seeds!r}")
        seeds = tuple(_integer(f"{where}: seeds", seed, least=0) for seed in seeds)
        _check_unique(f"{where}: seeds", seeds)
        environments.append(Environment(str(env_id), _integer(f"{where}: steps", own["steps"], least=1), seeds))
    if not environments:
        raise SpecificationError("environments: there has to be at least one")
    return tuple(environments)


def _methods(given: Any, base_folder: Path, env_ids: Collection[str]) -> tuple[Method, ...]:
    given = given if isinstance(given, dict) else dict.fromkeys(_strings("methods", given))
    if not given:
        raise SpecificationError("methods: there has to be at least one")
    return tuple(_method(str(name), own, base_folder, env_ids) for name, own in given.items())


def _method(name: str, given: Any, base_folder: Path, env_ids: Collection[str]) -> Method:
    """A mapping; an algorithm alone; or nothing, then the name is that of the algorithm."""
    where = f"methods: {name}"
    own = {"algorithm": given} if isinstance(given, str) else (given or {})
    _check_keys(where, own, METHOD_KEYS)
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
        environments = tuple(_strings(f"{where}: environments", environments))
        for one in environments:
            if one not in env_ids:
                raise SpecificationError(_unknown(f"{where}: environments", one, env_ids))
    algorithm = own.get("algorithm", name)
    return Method(name, str(algorithm), hyperparameters, conf, environments)


def _evaluation(given: Any) -> dict[str, Any]:
    own = given or {}
    _check_keys("evaluation", own, EVALUATION_KEYS)
    evaluation = dict(own)
    for key, least in (("episodes", 1), ("every", 0), ("robustness_episodes", 1), ("seed", 0)):
        if key in own:
            evaluation[key] = _integer(f"evaluation: {key}", own[key], least)
    levels = own.get("robustness") or []
    if not isinstance(levels, list) or not all(_is_number(level) and level >= 0 for level in levels):
        raise SpecificationError(f"evaluation: robustness takes a list of noise levels, [0.1] for example; got {levels!r}")
    evaluation["robustness"] = tuple(float(level) for level in levels)
    if not isinstance(own.get("geometry", False), bool):
        raise SpecificationError(f"evaluation: geometry takes true or false; got {own['geometry']!r}")
    return evaluation


def _zoos_entry(method: Method, env_id: str) -> dict[str, Any]:
    import yaml

    from sb3_pave.zoo.defaults import default_hyperparameters

    try:
        if method.conf is None:
            return dict(default_hyperparameters(method.algorithm, env_id))
        entries = yaml.safe_load(method.conf.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        file = f"the file of {method.algorithm}" if method.conf is None else method.conf
        raise SpecificationError(f"methods: {method.name}: {file} could not be read: {error}") from error
    except KeyError:
        entries = None
    entry = entries.get(env_id, entries.get("default")) if isinstance(entries, dict) else None
    if not isinstance(entry, dict):
        raise SpecificationError(
            f"methods: {method.name}: {method.conf or method.algorithm} has no entry for {env_id}, and no default: give a "
            "conf file that has one"
        )
    return dict(entry)


def _know(gym_packages: Collection[str]) -> None:
    """Register our algorithms and the environments of the zoo's and the user's packages."""
    try:
        from sb3_pave.zoo import register
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('Grids need RL Zoo: pip install "sb3-pave[experiments]"', name=error.name) from error
    importlib.import_module("rl_zoo3.import_envs")
    register()
    for package in gym_packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise SpecificationError(f"gym_packages: {package} could not be imported: {error}") from error


def _check_environment(env_id: str) -> None:
    import gymnasium as gym

    if env_id not in gym.envs.registry:
        raise SpecificationError(_unknown("environments", env_id, gym.envs.registry))


def _check_algorithm(where: str, algorithm: str) -> None:
    from rl_zoo3.utils import ALGOS

    if algorithm not in ALGOS:
        raise SpecificationError(_unknown(f"{where}: algorithm", algorithm, ALGOS))


def _check_hyperparameters(where: str, algorithm: str, given: Mapping[str, Any]) -> None:
    """What neither the zoo nor a constructor of the class or its parents takes is a mistake."""
    import inspect

    from rl_zoo3.utils import ALGOS

    known = set(ZOO_KEYS)
    for parent in ALGOS[algorithm].__mro__:
        if "__init__" in vars(parent):
            known.update(inspect.signature(vars(parent)["__init__"]).parameters)
    known -= {"self", "args", "kwargs", "env", "seed", "device", "verbose", "tensorboard_log", "_init_setup_model"}
    for name in given:
        if name not in known:
            raise SpecificationError(_unknown(where, str(name), known))


def _check_keys(where: str, given: Any, known: Collection[str], required: Collection[str] = ()) -> None:
    if not isinstance(given, dict):
        raise SpecificationError(f"{where} takes a mapping with {', '.join(known)}; got {given!r}")
    for key in given:
        if key not in known:
            raise SpecificationError(_unknown(where, str(key), known))
    for key in required:
        if key not in given:
            raise SpecificationError(f"{where} needs {key}")


def _unknown(where: str, name: str, known: Collection[str]) -> str:
    closest = difflib.get_close_matches(name, known, n=1)
    hint = f", did you mean {closest[0]}?" if closest else f"; known: {', '.join(sorted(known))}" if len(known) < 50 else ""
    return f"{where}: {name!r} is not known{hint}"


def _integer(where: str, given: Any, least: int) -> int:
    # YAML reads 1e6 as text and 1.0e6 as a float
    if isinstance(given, str | float) and not isinstance(given, bool):
        try:
            given = int(float(given)) if float(given).is_integer() else given
        except ValueError:
            pass
    if isinstance(given, bool) or not isinstance(given, int) or given < least:
        raise SpecificationError(f"{where} takes a whole number from {least} on; got {given!r}")
    return given


def _is_number(given: Any) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool)


def _strings(where: str, given: Any) -> list[str]:
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise SpecificationError(f"{where} takes a list of names; got {given!r}")
    _check_unique(where, given)
    return given


def _check_unique(where: str, given: Collection[Any]) -> None:
    if len(set(given)) < len(given):
        raise SpecificationError(f"{where}: {list(given)!r} has an entry twice")
