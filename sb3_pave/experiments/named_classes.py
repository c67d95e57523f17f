"""Classes that hyperparameters name, which RL Zoo imports when a training begins: wrappers, callbacks, policies."""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Mapping
from importlib.machinery import PathFinder
from typing import Any

from sb3_pave.evaluation.user_modules import why_not_imported
from sb3_pave.experiments.given import SpecificationError

_NAMES = ("env_wrapper", "vec_env_wrapper", "callback")


def check_named_classes(where: str, given: Mapping[str, Any]) -> None:
    """
    :param where: what an error calls the place
    :param given: hyperparameters as an entry of a zoo YAML has them
    :raises SpecificationError: if one of them names a class that is not there
    """
    for key in _NAMES:
        value = given.get(key)
        for one in value if isinstance(value, list) else [value]:
            # Each may have arguments below it
            name = next(iter(one)) if isinstance(one, Mapping) and len(one) == 1 else one
            if isinstance(name, Mapping):
                raise SpecificationError(f"{where}: {key}: takes names, each alone with its arguments below it; got {one!r}")
            if isinstance(name, str):
                _check_name(f"{where}: {key}", name)
    policy = given.get("policy")
    if isinstance(policy, str) and "." in policy:
        _check_name(f"{where}: policy", policy)


def _check_name(where: str, dotted: str) -> None:
    module, _, name = dotted.rpartition(".")
    if not module:
        raise SpecificationError(f"{where} takes a class with its module, my_module.{name} for example; got {dotted!r}")
    try:
        found = importlib.import_module(module)
    except Exception as error:
        if not _is_found_by_trainings(error, module):
            raise SpecificationError(f"{where}: {dotted} could not be imported: {why_not_imported(error)}") from error
        return
    if not hasattr(found, name):
        closest = difflib.get_close_matches(name, vars(found), n=1)
        raise SpecificationError(f"{where}: {module} has no {name}{f', did you mean {closest[0]}?' if closest else ''}")


def _is_found_by_trainings(error: Exception, module: str) -> bool:
    """They look in the current folder, too, where a script of the user may not."""
    top = module.partition(".")[0]
    missing = isinstance(error, ModuleNotFoundError) and error.name == top
    return missing and PathFinder.find_spec(top, [os.getcwd()]) is not None
