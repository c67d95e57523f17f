"""
PAVE's rivals: methods that smooth the actor's loss or gradient where PAVE steadies the critic's field.

Each is a factory for the algorithm that it is given: ``caps(SAC)("MlpPolicy", env, spatial_coef=0.5)``. They take SB3's and
sb3-contrib's actor-critics, subclasses of them, and the PAVE classes: ``damper(PAVE_TD3)`` trains with both.
"""

from sb3_pave.baselines.factory import METHODS, Host, with_method

__all__ = ["METHODS", "asap", "caps", "damper", "grad", "temporal"]


def temporal(host: type[Host]) -> type[Host]:
    """
    The algorithm with the plain temporal loss, see ``Temporal`` for its arguments.

    :param host: an off-policy actor-critic, plain or PAVE
    """
    return with_method("temporal", host)


def caps(host: type[Host]) -> type[Host]:
    """
    The algorithm with CAPS, see ``Caps`` for its arguments.

    :param host: an off-policy actor-critic, plain or PAVE
    """
    return with_method("caps", host)


def grad(host: type[Host]) -> type[Host]:
    """
    The algorithm with GRAD, see ``Grad`` for its arguments.

    :param host: an off-policy actor-critic, plain or PAVE
    """
    return with_method("grad", host)


def asap(host: type[Host]) -> type[Host]:
    """
    The algorithm with ASAP, see ``Asap`` for its arguments.

    :param host: an off-policy actor-critic, plain or PAVE
    """
    return with_method("asap", host)


def damper(host: type[Host]) -> type[Host]:
    """
    The algorithm with DAMPER, see ``Damper`` for its arguments.

    :param host: an off-policy actor-critic, plain or PAVE
    """
    return with_method("damper", host)
