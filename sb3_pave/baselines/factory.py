"""An actor-side method for an algorithm: one of SB3's or sb3-contrib's, a user's, or a PAVE class."""

from functools import cache
from typing import TypeVar, cast

from stable_baselines3 import DQN
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_pave.algorithms.factory import refuse_name_clashes
from sb3_pave.algorithms.made_classes import make_class
from sb3_pave.baselines.methods.asap import Asap
from sb3_pave.baselines.methods.caps import Caps
from sb3_pave.baselines.methods.damper import Damper
from sb3_pave.baselines.methods.grad import Grad
from sb3_pave.baselines.methods.temporal import Temporal
from sb3_pave.baselines.mixin import ActorSideMethod

Host = TypeVar("Host", bound=OffPolicyAlgorithm)

METHODS: dict[str, type[ActorSideMethod]] = {one.method: one for one in (Temporal, Caps, Grad, Asap, Damper)}


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
    namespace = {"__doc__": f"{host.__name__} with {name.upper()} at its actor's steps, see ``{method.__module__}``."}
    return make_class(f"{name.upper()}_{host.__name__}", (method, host), namespace, with_method, name, host)
