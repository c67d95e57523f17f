"""What a user has written in a specification, read and checked; an error names the key and says what is allowed."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import yaml

from sb3_pave.experiments.yaml_once import load_once

Made = TypeVar("Made")


class SpecificationError(ValueError):
    """A specification that can't be run; the message names the key and says what is allowed."""


def from_file(path: str | os.PathLike, make: Callable[[Any, Path], Made]) -> Made:
    """
    :param path: a YAML file
    :param make: makes a specification of what the file holds, and of the folder that paths in it are relative to
    :return: what it makes
    :raises SpecificationError: if the file can't be read, or that of ``make`` with the file's name
    """
    try:
        content = load_once(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpecificationError(f"{path} could not be read: {error}") from error
    try:
        return make(content, Path(path).parent)
    except SpecificationError as error:
        raise SpecificationError(f"{path}: {error}") from None


def check_keys(where: str, given: Any, known: Collection[str], required: Collection[str] = ()) -> None:
    """
    :param where: what an error calls the place
    :param given: what should be a mapping
    :param known: the keys that it may have
    :param required: those that it must have
    :raises SpecificationError: if it is none, or has others
    """
    if not isinstance(given, dict):
        raise SpecificationError(f"{where} takes a mapping with {', '.join(known)}; got {given!r}")
    for key in given:
        if key not in known:
            raise SpecificationError(unknown(where, str(key), known))
    for key in required:
        if key not in given:
            raise SpecificationError(f"{where} needs {key}")


def unknown(where: str, name: str, known: Collection[str]) -> str:
    """
    :param where: what an error calls the place
    :param name: a name that is not known
    :param known: those that are
    :return: a sentence that says so, and which one may be meant
    """
    closest = difflib.get_close_matches(name, known, n=1)
    hint = f", did you mean {closest[0]}?" if closest else f"; known: {', '.join(sorted(known))}" if len(known) < 50 else ""
    return f"{where}: {name!r} is not known{hint}"


def integer(where: str, given: Any, least: int, most: int | None = None) -> int:
    """
    :param where: what an error calls the place
    :param given: a number as YAML reads it
    :param least: the lowest that is allowed
    :param most: the highest that is allowed; None for any
    :return: the whole number
    :raises SpecificationError: if it is none
    """
    # YAML reads 1e6 as text and 1.0e6 as a float
    if isinstance(given, str | float) and not isinstance(given, bool):
        try:
            given = int(float(given)) if float(given).is_integer() else given
        except ValueError:
            pass
    if isinstance(given, bool) or not isinstance(given, int) or given < least or (most is not None and given > most):
        bounds = f"{least} on" if most is None else f"{least} to {most}"
        raise SpecificationError(f"{where} takes a whole number from {bounds}; got {given!r}")
    return given


def is_number(given: Any) -> bool:
    """
    :param given: anything
    :return: whether it is a number; true and false are none
    """
    return isinstance(given, int | float) and not isinstance(given, bool)


def strings(where: str, given: Any) -> list[str]:
    """
    :param where: what an error calls the place
    :param given: what should be a list of names
    :return: the list
    :raises SpecificationError: if it is none, or has a name twice
    """
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise SpecificationError(f"{where} takes a list of names; got {given!r}")
    check_unique(where, given)
    return given


def check_unique(where: str, given: Collection[Any]) -> None:
    """
    :param where: what an error calls the place
    :param given: a list
    :raises SpecificationError: if it has an entry twice
    """
    if len(set(given)) < len(given):
        raise SpecificationError(f"{where}: {list(given)!r} has an entry twice")
