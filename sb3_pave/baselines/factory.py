"""An actor-side method for an algorithm: one of SB3's or sb3-contrib's, a user's, or a PAVE class."""

import importlib
from functools import cache
from typing import Any, TypeVar, cast

from stable_baselines3 import DQN
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_pave.algorithms.factory import refuse_name_clashes
from sb3_pave.baselines.methods.asap import Asap
from sb3_pave.baselines.methods.caps import Caps
from sb3_pave.baselines.methods.damper import Damper
from sb3_pave.baselines.methods.grad import Grad
from sb3_pave.baselines.methods.temporal import Temporal
from sb3_pave.baselines.mixin import ActorSideMethod

Host = TypeVar("Host", bound=OffPolicyAlgorithm)

METHODS: dict[str, type[ActorSideMethod]] = {one.method: one for one in (Temporal, Caps, Grad, Asap, Damper)}

# Where hosts are known by name; sb3-contrib is optional
_HOUSES = ("sb3_pave.algorithms", "stable_baselines3", "sb3_contrib")
_MODULE = "sb3_pave.baselines"


def with_method(name: str, host: type[Host]) -> type[Host]:
    """
    The given algorithm with an actor-side method: a subclass of it that takes its arguments and the method's.

    :param name: one of ``METHODS``
    :param host: an off-policy actor-critic of SB3 or sb3-contrib, a subclass of one, or a PAVE class
    :return: the same class for the same host
    :raises TypeError: if the host has no actor that climbs a critic ``Q(s, a)``, has another actor-side method, or uses names
        that the method needs for itself
    """
    if not isinstance(host, type):
        raise TypeError(f"{name}() takes a class, such as SAC or a subclass of it, not {host!r}.")
    return cast(type[Host], _made(name, host))


@cache
def _made(name: str, host: type[OffPolicyAlgorithm]) -> type[OffPolicyAlgorithm]:
    method = METHODS[name]
    if issubclass(host, method):
        return host
    if not issubclass(host, OffPolicyAlgorithm) or issubclass(host, DQN):
        raise TypeError(
            f"{host.__name__} has no actor that climbs a critic Q(s, a), whose steps {name} could join. Use SAC, TD3, DDPG, "
            "TQC, CrossQ, a subclass of one, or a PAVE class."
        )
    if issubclass(host, ActorSideMethod):
        raise TypeError(
            f"{host.__name__} has an actor-side method, {host.method}: two of them do not combine. Give {name}() the "
            f"algorithm without it; PAVE combines with each of them, {name}(PAVE_SAC) for one."
        )
    refuse_name_clashes(host, OffPolicyAlgorithm, method, name.upper())
    namespace = {
        # Pickled by name, the class is found again there
        "__module__": _MODULE if _known_host(host.__name__) is host else host.__module__,
        "__doc__": f"{host.__name__} with {name.upper()} at its actor's steps, see ``{_MODULE}.{name}``.",
    }
    return type(f"{name.upper()}_{host.__name__}", (method, host), namespace)


def class_named(class_name: str) -> type[OffPolicyAlgorithm] | None:
    """
    :param class_name: such as ``CAPS_SAC`` or ``DAMPER_PAVE_TD3``
    :return: that class, or None if there is no such method or host
    """
    prefix, _, host_name = class_name.partition("_")
    host = _known_host(host_name) if prefix.lower() in METHODS and prefix.isupper() else None
    return None if host is None else _made(prefix.lower(), host)


def _known_host(host_name: str) -> type[OffPolicyAlgorithm] | None:
    """The algorithm of that name in the packages that users import algorithms from."""
    for house in _HOUSES:
        try:
            found: Any = getattr(importlib.import_module(house), host_name, None)
        except ImportError:
            continue
        if isinstance(found, type) and issubclass(found, OffPolicyAlgorithm):
            return found
    return None
