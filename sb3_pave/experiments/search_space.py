"""What a search may change: hyperparameters and their ranges."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sb3_pave.evaluation.plain_data import plain
from sb3_pave.experiments.given import SpecificationError
from sb3_pave.experiments.zoo_knowledge import action_space, check_hyperparameters

RANGE_KEYS = ("low", "high", "log", "int")

Hyperparameters = dict[str, Any]


@dataclass(frozen=True)
class HostSpace:
    """
    The zoo's own search space of an algorithm.

    :param sample: its sampler
    :param convert: parameters as Optuna has them -> hyperparameters
    :param n_actions: action dimensions of the environment
    :param activation: of the networks, as an entry names it, where the method's does: what is drawn of ``policy_kwargs`` takes
        the place of the entry's
    """

    sample: Callable[..., Hyperparameters]
    convert: Callable[[Hyperparameters], Hyperparameters]
    n_actions: int
    activation: str | None = None

    def __call__(self, trial: optuna.Trial, known: Mapping[str, Any]) -> Hyperparameters:
        """
        :param trial: the trial
        :param known: parameters that it has drawn already, by name; they are not drawn again
        :return: what it has drawn, as an entry of a zoo YAML would have it
        :raises SpecificationError: if that holds more than plain data
        """
        asked = _HostTrial(trial, known)
        self.sample(asked, self.n_actions, 1, {"using_her_replay_buffer": False, "her_kwargs": {}})
        converted = self.convert(asked.drawn)
        try:
            json.dumps(plain(converted))
        except TypeError as error:
            raise SpecificationError(
                f"host_space: the zoo's space of the algorithm can't be searched, it draws more than plain data: {converted!r}"
            ) from error
        drawn = converted.get("policy_kwargs")
        if self.activation is not None and isinstance(drawn, dict):
            arguments = [f"{name}={value!r}" for name, value in drawn.items()]
            converted["policy_kwargs"] = f"dict({', '.join([*arguments, f'activation_fn={self.activation}'])})"
        return converted


class _HostTrial:
    """
    A trial as the zoo's sampler of the host sees it. A trial that is tried again has all of its parameters from the beginning;
    which of them are the host's is seen from what the sampler asks for.

    :param trial: the trial
    :param known: parameters that it has drawn already, by name
    """

    def __init__(self, trial: optuna.Trial, known: Mapping[str, Any]):
        self.trial, self.known = trial, known
        self.drawn: dict[str, Any] = {}

    def __getattr__(self, attribute: str) -> Any:
        of_trial = getattr(self.trial, attribute)
        if not attribute.startswith("suggest_"):
            return of_trial

        def suggest(name: str, *args: Any, **kwargs: Any) -> Any:
            self.drawn[name] = self.known[name] if name in self.known else of_trial(name, *args, **kwargs)
            return self.drawn[name]

        return suggest


@dataclass(frozen=True)
class SearchSpace:
    """
    :param ranges: by hyperparameter, what it is drawn from
    :param host: the zoo's space of the algorithm, drawn as well; None for no more than the ranges
    """

    ranges: Mapping[str, BaseDistribution]
    host: HostSpace | None = None

    def sample(self, trial: optuna.Trial) -> Hyperparameters:
        """
        :param trial: a trial
        :return: the hyperparameters that it is about; where both have one, the range counts
        """
        sampled = {name: _suggest(trial, name, values) for name, values in self.ranges.items()}
        return sampled if self.host is None else {**self.host(trial, sampled), **sampled}

    def starting_point(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """
        :param known: hyperparameters from which the search starts, among others
        :return: those of them that lie in their range
        """
        return {name: known[name] for name, values in self.ranges.items() if name in known and _contains(values, known[name])}


def make_space(
    search: Any, algorithm: str, env_id: str, host_space: bool, entry: Hyperparameters | None = None
) -> SearchSpace:
    """
    :param search: by hyperparameter, ``{low, high}``, with ``log: true`` for a logarithmic scale or ``int: true`` for whole
        numbers, or ``{choices: [...]}``; None for the weights of the algorithm's method, in the ranges of the zoo's
        ``-optimize``
    :param algorithm: name of the algorithm in the zoo
    :param env_id: the environment
    :param host_space: whether the zoo's space of the algorithm is searched as well
    :param entry: the method's, as a zoo YAML has it
    :return: the space
    :raises SpecificationError: if a range or the host's space can't be searched, a hyperparameter is unknown or would get a
        value that it can't have, or the algorithm has nothing to search
    """
    ranges = _method_weights(algorithm) if search is None else _ranges(search)
    for name, values in ranges.items():
        _check_drawn(name, values, algorithm)
    space = SearchSpace(ranges, _host_space(algorithm, env_id, entry or {}) if host_space else None)
    if search is not None and not ranges and space.host is None:
        raise SpecificationError("search is empty: name what is to be searched, or leave it out for the method's weights")
    if not ranges and space.host is None:
        raise SpecificationError(f"search: {algorithm} has no weights of a method; name what is to be searched")
    if space.host is not None:
        space.sample(_some_trial())  # raises if it can't be
    return space


def _ranges(search: Any) -> dict[str, BaseDistribution]:
    if not isinstance(search, dict):
        raise SpecificationError(f"search takes a mapping, hyperparameter: {{low: 0.01, high: 10, log: true}}; got {search!r}")
    return {str(name): _range(f"search: {name}", given) for name, given in search.items()}


def _range(where: str, given: Any) -> BaseDistribution:
    if isinstance(given, dict) and given.keys() == {"choices"} and isinstance(given["choices"], list) and given["choices"]:
        if not all(choice is None or isinstance(choice, bool | int | float | str) for choice in given["choices"]):
            raise SpecificationError(f"{where}: choices are numbers, texts, true, false or null; got {given['choices']!r}")
        return CategoricalDistribution(given["choices"])
    if not isinstance(given, dict) or not {"low", "high"} <= given.keys() <= set(RANGE_KEYS):
        raise SpecificationError(f"{where} takes {{low, high, log, int}} or {{choices: [...]}}; got {given!r}")
    try:
        low, high = float(given["low"]), float(given["high"])
        log, whole = (_flag(name, given.get(name, False)) for name in ("log", "int"))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("low and high have to be finite")
        if low == high:
            raise ValueError("low and high are the same")
        if whole and not (low.is_integer() and high.is_integer()):
            raise ValueError("low and high have to be whole numbers, with int: true")
        return IntDistribution(int(low), int(high), log) if whole else FloatDistribution(low, high, log)
    except (TypeError, ValueError) as error:
        raise SpecificationError(f"{where}: {error}; got {given!r}") from error


def _flag(name: str, given: Any) -> bool:
    if not isinstance(given, bool):
        raise ValueError(f"{name} takes true or false")
    return given


def _check_drawn(name: str, values: BaseDistribution, algorithm: str) -> None:
    """What can be drawn has to be what the algorithm takes: choices, or the ends of a range."""
    from sb3_pave.zoo.constructors import takes_whole_numbers

    if isinstance(values, FloatDistribution) and takes_whole_numbers(algorithm, name):
        raise SpecificationError(f"search: {name} takes whole numbers: add int: true to its range, or list its choices")
    ends = values.choices if isinstance(values, CategoricalDistribution) else (values.low, values.high)  # type: ignore[attr-defined]
    for one in ends:
        check_hyperparameters("search", algorithm, {name: one})


def _method_weights(algorithm: str) -> dict[str, BaseDistribution]:
    """Of our algorithms, what the zoo's ``-optimize`` searches besides the host's hyperparameters."""
    from rl_zoo3.hyperparams_opt import HYPERPARAMS_SAMPLER

    from sb3_pave.zoo.search import PaveSampler

    sampler: Any = HYPERPARAMS_SAMPLER.get(algorithm)
    if not isinstance(sampler, PaveSampler):
        return {}
    trial = _some_trial()
    dataclasses.replace(sampler, sample_host=None)(trial)
    return dict(trial.distributions)


def _host_space(algorithm: str, env_id: str, entry: Hyperparameters) -> HostSpace:
    from rl_zoo3.hyperparams_opt import HYPERPARAMS_SAMPLER

    from sb3_pave.zoo.search import PaveSampler, pave_converter

    sampler: Any = HYPERPARAMS_SAMPLER.get(algorithm)
    sample = sampler.sample_host if isinstance(sampler, PaveSampler) else sampler
    if sample is None:
        raise SpecificationError(f"host_space: the zoo has no search space for {algorithm}")
    return HostSpace(sample, pave_converter(algorithm), _n_actions(env_id, entry), _activation(entry.get("policy_kwargs")))


def _n_actions(env_id: str, entry: Hyperparameters) -> int:
    """Of the environment as the training makes it."""
    import gymnasium as gym
    from rl_zoo3.utils import get_wrapper_class

    try:
        actions = action_space(env_id, entry.get("env_kwargs") or {}, get_wrapper_class(entry))
    except Exception as error:  # whatever an environment raises
        raise SpecificationError(f"host_space: {env_id} can't be made, and its actions have to be counted: {error}") from error
    if not isinstance(actions, gym.spaces.Box) or not actions.shape:
        raise SpecificationError(f"host_space: the actions of {env_id} are {actions}, and have to be continuous")
    return actions.shape[0]


def _activation(policy_kwargs: Any) -> str | None:
    """What ``dict(net_arch=[64, 64], activation_fn=nn.SiLU)`` names."""
    if not isinstance(policy_kwargs, str):
        return None
    try:
        call = ast.parse(policy_kwargs, mode="eval").body
    except SyntaxError:  # the zoo will say so
        return None
    named = {keyword.arg: keyword.value for keyword in getattr(call, "keywords", ())}
    return ast.unparse(named["activation_fn"]) if "activation_fn" in named else None


def _some_trial() -> optuna.Trial:
    return optuna.create_study(sampler=optuna.samplers.RandomSampler()).ask()


def _contains(values: BaseDistribution, value: Any) -> bool:
    try:
        return values._contains(values.to_internal_repr(value))
    except (TypeError, ValueError):  # a choice that is not listed; a schedule or "auto" where numbers are searched
        return False


def _suggest(trial: optuna.Trial, name: str, values: BaseDistribution) -> Any:
    if isinstance(values, FloatDistribution):
        return trial.suggest_float(name, values.low, values.high, log=values.log)
    if isinstance(values, IntDistribution):
        return trial.suggest_int(name, values.low, values.high, log=values.log)
    assert isinstance(values, CategoricalDistribution)
    return trial.suggest_categorical(name, values.choices)
