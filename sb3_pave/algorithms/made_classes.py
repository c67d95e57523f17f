"""
Classes made at run time that can be pickled: by what they were made from, since no module has them by their name.

Spawned processes and joblib's workers get the call that makes the class (``pave(MySAC)``) and make it, or find it made.
"""

import copyreg
import types
from abc import ABCMeta
from collections.abc import Callable
from functools import cache
from typing import Any

_recipes: dict[type, tuple[Callable[..., type], tuple[Any, ...]]] = {}
_made: dict[str, type] = {}


def make_class(
    name: str, bases: tuple[type, ...], namespace: dict[str, Any], maker: Callable[..., type], *arguments: Any
) -> type:
    """
    Make a class that pickle, cloudpickle and joblib can send to other processes.

    :param name: its name
    :param bases: its bases
    :param namespace: its attributes
    :param maker: a function at the top level of a module, which returns this very class whenever called with the arguments
    :param arguments: of ``maker``; they have to be picklable themselves
    """
    qualified = name
    while qualified in _made:
        qualified += "_"
    # cloudpickle copies classes that it does not find in their module
    attributes = {**namespace, "__module__": __name__, "__qualname__": qualified}
    metaclass, _, _ = types.prepare_class(name, bases)
    made = types.new_class(name, bases, {"metaclass": _picklable(metaclass)}, lambda body: body.update(attributes))
    _made[qualified] = made
    _recipes[made] = maker, arguments
    return made


class MadeABCMeta(ABCMeta):
    """The type of classes that are pickled by what they were made from; of their subclasses, pickled as usual, too."""


def _reduce(cls: type) -> str | tuple[Callable[..., type], tuple[Any, ...]]:
    return _recipes.get(cls, cls.__qualname__)


copyreg.pickle(MadeABCMeta, _reduce)  # type: ignore[arg-type]


@cache
def _picklable(metaclass: type) -> type:
    """Pickle has no hook for classes but by their type: a subclass of the given metaclass."""
    if issubclass(metaclass, MadeABCMeta):
        return metaclass
    if metaclass in (type, ABCMeta):
        return MadeABCMeta
    # The host's own
    made = types.new_class(f"Made{metaclass.__name__}", (metaclass,))
    made.__module__ = metaclass.__module__
    copyreg.pickle(made, _reduce)  # type: ignore[arg-type]
    return made


def __getattr__(name: str) -> type:
    try:
        return _made[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
