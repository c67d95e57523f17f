"""
Values of hyperparameters that no training can begin with, found without making the agent: a file of the zoo is read as YAML,
where 1e-3 is text.
"""

import ast
import inspect
from collections.abc import Mapping
from typing import Any

from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.utils import ALGOS

from sb3_pave.algorithms.checks import check_hyperparameters
from sb3_pave.algorithms.mixin import Pave
from sb3_pave.algorithms.plain_values import plain_flag, plain_number
from sb3_pave.algorithms.units import settle_weights
from sb3_pave.baselines.mixin import ActorSideMethod
from sb3_pave.zoo.constructors import constructor_parameters
from sb3_pave.zoo.errors import ZooError

# What the zoo evaluates as Python where it is text
_EVALUATED = ("normalize", "policy_kwargs", "replay_buffer_class", "replay_buffer_kwargs", "monitor_kwargs")
# What the zoo makes schedules of
_SCHEDULES = ("learning_rate", "clip_range", "clip_range_vf", "delta_std")


def check_values(algorithm: str, given: Mapping[str, Any]) -> None:
    """
    :param algorithm: name of an algorithm in the zoo
    :param given: hyperparameters as an entry of a zoo YAML has them, all of them known
    :raises ZooError: if one of them has a value that the zoo or the class refuses
    """
    parameters = constructor_parameters(ALGOS[algorithm])
    try:
        for name, value in given.items():
            if name in _EVALUATED:
                _check_python(name, value)
            elif name == "policy":
                _check_policy(algorithm, value)
            else:
                _check_text(name, value, parameters.get(name))
        _check_arguments(ALGOS[algorithm], given, parameters)
    except ValueError as error:
        raise ZooError(str(error)) from error


def _check_text(name: str, value: Any, parameter: inspect.Parameter | None) -> None:
    """A number as text, unless SB3 has text there, too (ent_coef: auto), of which it makes numbers."""
    if isinstance(value, str) and not (parameter is not None and isinstance(parameter.default, str)):
        try:
            float(value)
        except ValueError:
            pass
        else:
            plain_number(name, value)  # raises, and says how YAML has it
    if name in _SCHEDULES:
        try:
            ExperimentManager._preprocess_schedules({name: value})
        except ValueError:
            raise ZooError(
                f"{name} takes a number, or lin_ and a number from which it falls to 0 (lin_0.001); got {value!r}"
            ) from None


def _check_python(name: str, value: Any) -> None:
    if isinstance(value, str):
        try:
            ast.parse(value.strip(), mode="eval")
        except SyntaxError as error:
            raise ZooError(f"{name} is evaluated as Python, and {value!r} is none: {error.msg}") from error


def _check_policy(algorithm: str, value: Any) -> None:
    known = getattr(ALGOS[algorithm], "policy_aliases", {})
    if value not in known and "." not in str(value):
        raise ZooError(f"policy takes {', '.join(known)}, or a class with its module; got {value!r}")


def _check_arguments(algorithm: type, given: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]) -> None:
    """What PAVE and its rivals say of their own arguments, of an agent that has nothing else."""
    if not issubclass(algorithm, (Pave, ActorSideMethod)) or not parameters:
        return
    agent: Any = algorithm.__new__(algorithm)
    vars(agent).update({name: parameter.default for name, parameter in parameters.items()}, env=None)
    vars(agent).update(given)
    if isinstance(agent, Pave):
        agent.scale_free = plain_flag("scale_free", agent.scale_free)
        settle_weights(agent)
        check_hyperparameters(agent)
    if isinstance(agent, ActorSideMethod):
        agent._check_arguments()
