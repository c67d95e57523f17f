"""What ``inspect.signature``, ``help`` and editors show of functions that pass on to the host's what they do not know."""

import inspect
from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature
from types import MethodType
from typing import Any

_VARIABLE = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


class JoinedSignature:
    """
    As the attribute ``__signature__`` of a class: the arguments of its constructor, together with those that this passes on
    to the next one in the bases by ``*args`` and ``**kwargs``, and so on.
    """

    def __get__(self, instance: Any, owner: type) -> Signature | None:
        return joined_signature(owner)


def joined_signature(cls: type) -> Signature | None:
    """
    :param cls: a class
    :return: all that its constructors take; None where inspect can't tell
    """
    constructors = [vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base)]
    try:
        parameters = _own(constructors[0])
        for constructor in constructors[1:]:
            if not any(parameter.kind in _VARIABLE for parameter in parameters):
                break
            parameters = _joined(parameters, _own(constructor))
        return Signature(parameters)
    except (TypeError, ValueError):
        return None


class HostsSignature:
    """
    Decorates a method that passes all arguments on to the next one of its name in the bases: it is shown as that.

    :param function: the method
    """

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __set_name__(self, owner: type, name: str) -> None:
        self._owner, self._name = owner, name

    def __get__(self, instance: Any, owner: type) -> Any:
        function = self._function
        # May be one of these again: of another class of ours further on in the bases
        host = getattr(super(self._owner, owner), self._name, function)

        @wraps(host)
        def passing_on(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        passing_on.__doc__ = host.__doc__ or function.__doc__
        return passing_on if instance is None else MethodType(passing_on, instance)


def _own(constructor: Callable[..., Any]) -> list[Parameter]:
    """All but ``self``."""
    return list(inspect.signature(constructor).parameters.values())[1:]


def _joined(parameters: list[Parameter], passed_on: list[Parameter]) -> list[Parameter]:
    """
    :param parameters: with ``*args``, ``**kwargs`` or both
    :param passed_on: of what is called with those
    """
    kinds = {parameter.kind for parameter in parameters}
    named = {parameter.name for parameter in parameters if parameter.kind not in _VARIABLE}
    passed_on = [parameter for parameter in passed_on if parameter.name not in named]
    if Parameter.VAR_KEYWORD not in kinds:
        passed_on = [p for p in passed_on if p.kind in (Parameter.POSITIONAL_ONLY, Parameter.VAR_POSITIONAL)]
    elif Parameter.VAR_POSITIONAL not in kinds:
        passed_on = [
            parameter.replace(kind=Parameter.KEYWORD_ONLY) if parameter.kind is Parameter.POSITIONAL_OR_KEYWORD else parameter
            for parameter in passed_on
            if parameter.kind not in (Parameter.POSITIONAL_ONLY, Parameter.VAR_POSITIONAL)
        ]
    merged = [parameter for parameter in parameters if parameter.kind not in _VARIABLE] + passed_on
    # Stable: the caller's own come first among their kind
    return sorted(merged, key=lambda parameter: parameter.kind)
