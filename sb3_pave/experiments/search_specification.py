"""What a search is: a grid with one method, and what may change of it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sb3_pave.evaluation.plain_data import plain
from sb3_pave.experiments.given import SpecificationError, check_keys, from_file
from sb3_pave.experiments.runs import Run
from sb3_pave.experiments.search_space import SearchSpace, make_space
from sb3_pave.experiments.specification import SECTIONS, Specification
from sb3_pave.experiments.zoo_file import full_entry
from sb3_pave.experiments.zoo_knowledge import check_hyperparameters

KEYS = (*(section for section in SECTIONS if section != "methods"), "method", "search", "plain", "host_space")
# What the grids of a search call the agents under its keys
_METHOD_NAMES = {"method": "searched", "plain": "plain"}


@dataclass(frozen=True)
class SearchSpecification:
    """
    :param grid: environments, seeds and the rest, with the method that is searched as its only one
    :param space: what may change of it
    :param method_runs: the runs of the method without what is drawn. Their files are read once: those that are edited while
        it is searched change no trial
    :param plain: the same grid with the agent that it is compared with; None for none
    :param plain_runs: its runs
    """

    grid: Specification
    space: SearchSpace
    method_runs: tuple[Run, ...]
    plain: Specification | None = None
    plain_runs: tuple[Run, ...] = ()

    @classmethod
    def load(cls, path: str | os.PathLike) -> SearchSpecification:
        """
        :param path: a YAML file
        :return: the specification
        :raises SpecificationError: if the file can't be read, or as in :meth:`from_dict`
        """
        return from_file(path, cls.from_dict)

    @classmethod
    def from_dict(cls, content: Any, base_folder: str | os.PathLike = ".") -> SearchSpecification:
        """
        :param content: what the YAML file holds: the keys of a grid, ``method`` in place of ``methods`` (an algorithm, or a
            mapping with ``algorithm``, ``hyperparameters``, ``conf``); ``search``, see
            :func:`sb3_pave.experiments.search_space.make_space`; ``host_space``, whether the zoo's space of the host is
            searched as well; ``plain``, the method that it is compared with
        :param base_folder: what paths in it are relative to
        :return: the specification
        :raises SpecificationError: if a key, an algorithm or a hyperparameter is unknown, or a value is out of range
        """
        check_keys("the specification", content, KEYS, required=("method",))
        if not isinstance(content.get("host_space", False), bool):
            raise SpecificationError(f"host_space takes true or false; got {content['host_space']!r}")
        for key in ("method", "plain"):
            if isinstance(content.get(key), dict) and "environments" in content[key]:
                raise SpecificationError(f"{key} takes no environments of its own: all of the specification's are searched on")
        common = {key: content[key] for key in SECTIONS if key in content}
        grid = _with_method(common, "method", content["method"], base_folder)
        runs = tuple(grid.runs())
        entry, host_space = full_entry(runs[0]), content.get("host_space", False)
        space = make_space(content.get("search"), runs[0].algorithm, runs[0].environment, host_space, entry)
        against = None
        if content.get("plain") is not None:
            against = _with_method(common, "plain", content["plain"], base_folder)
        elif len(grid.environments) > 1:
            raise SpecificationError("several environments need plain, the agent whose return and sm are the scale of each")
        _check_units(runs, space)
        return cls(grid, space, runs, against, () if against is None else tuple(against.runs()))

    def runs(self, hyperparameters: Mapping[str, Any]) -> list[Run]:
        """
        :param hyperparameters: what was drawn
        :return: the runs of that trial
        :raises SpecificationError: if the algorithm does not take them
        """
        (method,) = self.grid.methods
        drawn = {**method.hyperparameters, **hyperparameters}
        check_hyperparameters("search", method.algorithm, drawn)
        return [dataclasses.replace(run, hyperparameters=drawn) for run in self.method_runs]

    def to_dict(self) -> dict[str, Any]:
        """:return: all that determines the results of trials, as JSON knows it"""
        described: dict[str, Any] = {
            "runs": sorted(run.key for run in self.method_runs),
            "plain": None if self.plain is None else sorted(run.key for run in self.plain_runs),
            "search": {name: repr(values) for name, values in self.space.ranges.items()},
            "host_space": self.space.host is not None,
        }
        return plain(described)


def _check_units(runs: Sequence[Run], space: SearchSpace) -> None:
    """A weight that is drawn for several environments has to mean the same on each."""
    from sb3_pave.zoo.search import WEIGHT_RANGES

    drawn = [name for name in WEIGHT_RANGES if name in space.ranges]
    units = {run.environment: full_entry(run).get("scale_free", True) for run in runs}
    if drawn and len(set(units.values())) > 1:
        told = ", ".join(f"{env_id}: {'scale_free' if free else 'its own'}" for env_id, free in units.items())
        raise SpecificationError(
            f"search: {drawn[0]} would count in different units ({told}): add scale_free: true, or false, to the "
            "hyperparameters of method"
        )


def _with_method(common: Mapping[str, Any], key: str, method: Any, base_folder: str | os.PathLike) -> Specification:
    own = _as_mapping(method)
    if not isinstance(own, dict) or "algorithm" not in own:
        raise SpecificationError(
            f"{key}: takes an algorithm, or a mapping with algorithm, hyperparameters, conf; got {method!r}"
        )
    name = _METHOD_NAMES[key]
    try:
        return Specification.from_dict({**common, "methods": {name: own}}, base_folder)
    except SpecificationError as error:
        # A grid has its methods under a key that there is not in the file of a search
        raise SpecificationError(str(error).replace(f"methods: {name}", key)) from None


def _as_mapping(method: Any) -> Any:
    return {"algorithm": method} if isinstance(method, str) else method
