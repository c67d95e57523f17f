"""A run: one agent of one method, trained with one seed on one environment, then measured."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from sb3_pave.evaluation.plain_data import plain

FORMAT = 1


@dataclass(frozen=True)
class EvaluationSettings:
    """
    How a run is measured, while it trains and at its end.

    :param episodes: deterministic episodes of each evaluation
    :param every: steps between evaluations while it trains; 0 for none
    :param robustness: levels of sensor noise at the end, in standard deviations of the observations; empty for none
    :param robustness_episodes: episodes at each level
    :param geometry: whether the critic's geometry is measured at the end
    :param seed: seed of the episodes at the end, the same for all runs
    """

    episodes: int = 10
    every: int = 0
    robustness: tuple[float, ...] = ()
    robustness_episodes: int = 20
    geometry: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Run:
    """
    All that a run needs. What determines its result gives it its ``key``.

    :param environment: id of the environment
    :param method: name of the method, as tables and pictures show it
    :param algorithm: name of the algorithm in the zoo
    :param seed: seed of the training
    :param steps: environment steps of the training
    :param hyperparameters: what differs from ``conf``, as an entry of a zoo YAML would have it
    :param conf: content of a zoo YAML with an entry for the environment or a ``default``; None takes the zoo's own file
    :param evaluation: how it is measured
    :param gym_packages: packages to import that register environments
    :param checkpoint_steps: steps between checkpoints, from which a killed run goes on; 0 for none
    :param device: PyTorch device
    :param threads: threads of its process
    """

    environment: str
    method: str
    algorithm: str
    seed: int
    steps: int
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    conf: str | None = None
    evaluation: EvaluationSettings = EvaluationSettings()
    gym_packages: tuple[str, ...] = ()
    checkpoint_steps: int = 0
    device: str = "auto"
    threads: int = 1

    @functools.cached_property
    def key(self) -> str:
        """
        Hash of all that determines the result, 12 hexadecimal digits. Where and how it is computed (device, threads,
        checkpoints) and how a YAML file is laid out do not count.
        """
        return self._hash(dataclasses.asdict(self.evaluation))

    @functools.cached_property
    def training_key(self) -> str:
        """Hash of all that determines the trained agent and its curves: runs that are measured in other ways share it."""
        # How long each of the evaluations that make the curves is, and how many there are
        names = ("episodes", "every") if self.evaluation.every else ("every",)
        return self._hash({name: getattr(self.evaluation, name) for name in names})

    def _hash(self, evaluation: Mapping[str, Any]) -> str:
        determining = {**self.to_dict(), "evaluation": evaluation}
        for name in ("format", "checkpoint_steps", "device", "threads"):
            del determining[name]
        determining["conf"] = None if self.conf is None else yaml.safe_load(self.conf)
        canonical = json.dumps(plain(determining), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    @property
    def folder_name(self) -> str:
        """A readable name for its folder, ending in the key."""
        words = (self.environment, self.method, f"seed{self.seed}", self.key)
        return "-".join(re.sub(r"[^\w.+-]+", "_", word) for word in words)

    def to_dict(self) -> dict[str, Any]:
        """:return: its fields as JSON knows them"""
        return {"format": FORMAT, **plain(dataclasses.asdict(self))}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Run:
        """
        :param saved: what :meth:`to_dict` gave; entries that are not a run's fields are ignored
        :return: the run
        :raises ValueError: if it is of another format
        """
        if saved.get("format") != FORMAT:
            raise ValueError(f"a run of format {saved.get('format')}; this version knows format {FORMAT}")
        fields = {one.name: saved[one.name] for one in dataclasses.fields(cls) if one.name in saved}
        evaluation = dict(fields["evaluation"])
        evaluation["robustness"] = tuple(evaluation["robustness"])
        fields.update(evaluation=EvaluationSettings(**evaluation), gym_packages=tuple(fields["gym_packages"]))
        return cls(**fields)
