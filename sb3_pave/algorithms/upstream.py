"""What is SB3's own, or sb3-contrib's, rather than a user's."""

from collections.abc import Callable
from typing import Any

_PACKAGES = ("stable_baselines3", "sb3_contrib")


def is_of_upstream(definition: type | Callable[..., Any]) -> bool:
    """
    :param definition: a class, a function or a method
    :return: whether SB3 or sb3-contrib defines it
    """
    return definition.__module__.partition(".")[0] in _PACKAGES
