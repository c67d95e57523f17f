"""PAVE for an algorithm of the user's own."""

import inspect
from functools import cache
from typing import TypeVar, cast

from stable_baselines3 import DQN
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_pave import algorithms
from sb3_pave.algorithms.made_classes import make_class
from sb3_pave.algorithms.mixin import Pave
from sb3_pave.algorithms.own_train import PaveOwnTrain
from sb3_pave.algorithms.signatures import joined_signature
from sb3_pave.algorithms.upstream import is_of_upstream

Host = TypeVar("Host", bound=OffPolicyAlgorithm)


def pave(host: type[Host]) -> type[Host]:
    """
    The given algorithm with PAVE: ``pave(MySAC)("MlpPolicy", env, my_argument=..., curv_coef=0.05)``.

    A subclass of it, which takes its arguments and those of ``Pave``. Where the host inherits ``train()`` from SB3, this is
    ``class PAVE_MySAC(PAVE_SAC, MySAC)``. Where it has its own, that runs as it is and PAVE joins each step of the critic's
    optimizer, see ``PaveOwnTrain``. Saved models are the host's own: ``MySAC.load`` reads them.

    :param host: an off-policy actor-critic of SB3 or sb3-contrib, or a subclass of one
    :return: the same class for the same host
    :raises TypeError: if the host has no critic ``Q(s, a)`` whose gradient an actor climbs, or if it uses names that PAVE
        needs for itself
    """
    if not isinstance(host, type):
        raise TypeError(f"pave() takes a class, such as SAC or a subclass of it, not {host!r}.")
    return cast(type[Host], _cached_pave(host))


@cache
def _cached_pave(host: type[OffPolicyAlgorithm]) -> type[OffPolicyAlgorithm]:
    if not issubclass(host, OffPolicyAlgorithm) or issubclass(host, DQN):
        raise TypeError(
            f"{host.__name__} has no actor that climbs the gradient of a critic Q(s, a), which is what PAVE steadies. Use "
            "SAC, TD3, DDPG, TQC, CrossQ or a subclass of one."
        )
    if issubclass(host, Pave):
        return host
    upstream, pave_class = _pave_of_upstream(host)
    if host is upstream:
        return pave_class
    if host.train is not upstream.train:
        pave_class = PaveOwnTrain
    refuse_name_clashes(host, upstream, pave_class, "PAVE")
    namespace = {"__doc__": f"{host.__name__} whose critics are trained with PAVE."}
    return make_class(f"PAVE_{host.__name__}", (pave_class, host), namespace, pave, host)


def _pave_of_upstream(host: type[OffPolicyAlgorithm]) -> tuple[type[OffPolicyAlgorithm], type[Pave]]:
    """The nearest algorithm of SB3 or sb3-contrib that the host extends, and its PAVE class."""
    for base in host.__mro__:
        ours = f"PAVE_{base.__name__}"
        if is_of_upstream(base) and ours in dir(algorithms):
            return base, getattr(algorithms, ours)
    return OffPolicyAlgorithm, PaveOwnTrain


def refuse_name_clashes(host: type, upstream: type, mixin: type, owner: str) -> None:
    """
    A mixin comes first in the bases: it would hide what the host calls by the same name.

    :param host: the algorithm that gets the mixin
    :param upstream: the class that host and mixin both extend, or one between it and the host whose names they may share
    :param mixin: the mixin
    :param owner: whose it is, for the message
    :raises TypeError: if the host defines one of the mixin's names
    """
    ours = {name for base in mixin.__mro__ if not issubclass(upstream, base) for name in vars(base)}
    theirs = {name for base in host.__mro__ if not issubclass(upstream, base) for name in vars(base)}
    clashes = {name for name in ours & theirs if not name.startswith("__") and not hasattr(upstream, name)}
    # The mixin would take them for its own arguments, or set its own in their place
    clashes |= _own_arguments(mixin, upstream) & (_named(joined_signature(host)) | theirs)
    if clashes:
        raise TypeError(
            f"{host.__name__} defines {', '.join(sorted(clashes))}, which {owner} needs for itself and would hide. Rename it "
            f"in {host.__name__}."
        )


def _own_arguments(mixin: type, upstream: type) -> set[str]:
    constructors = [vars(base).get("__init__") for base in mixin.__mro__ if not issubclass(upstream, base)]
    signatures = [inspect.signature(constructor) for constructor in constructors if constructor is not None]
    return {p.name for signature in signatures for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}


def _named(constructor: inspect.Signature | None) -> set[str]:
    parameters = () if constructor is None else constructor.parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {parameter.name for parameter in parameters if parameter.kind in named}
