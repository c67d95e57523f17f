"""What the constructors of the zoo's algorithms take."""

import inspect
import re
from collections.abc import Mapping

from rl_zoo3.utils import ALGOS

from sb3_pave.algorithms.signatures import joined_signature


def constructor_parameters(algorithm: type) -> dict[str, inspect.Parameter]:
    """
    :param algorithm: a class
    :return: what its constructor takes, and what this passes on to those of its parents; nothing where inspect can't tell
    """
    signature = joined_signature(algorithm)
    return {} if signature is None else dict(signature.parameters)


def accepted_names(parameters: Mapping[str, inspect.Parameter]) -> set[str] | None:
    """
    :param parameters: of a constructor; none where inspect can't tell
    :return: the names that it takes; None where it may take any
    """
    takes_any = not parameters or any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return None if takes_any else set(parameters)


def takes_whole_numbers(algorithm: str, name: str) -> bool:
    """
    :param algorithm: name of an algorithm in the zoo
    :param name: a hyperparameter
    :return: whether its constructor takes an integer there, and no float
    """
    parameter = constructor_parameters(ALGOS[algorithm]).get(name)
    kinds = set(re.findall(r"\w+", str(parameter.annotation))) if parameter is not None else set()
    return name in ("n_envs", "frame_stack") or ("int" in kinds and not kinds & {"float", "Callable"})
