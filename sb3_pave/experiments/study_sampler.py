"""The sampler of a search: each trial has one of its own, seeded with its number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from sb3_pave.experiments.study_storage import experimental

SamplerName = Literal["tpe", "nsga2", "random"]

# Attribute of a trial: by how much its return misses what has to be kept
CONSTRAINT = "constraint"

# Since Optuna 5; before, the sampler asks a function
SETS_CONSTRAINTS = hasattr(Trial, "set_constraint")


class SamplerOfEach(BaseSampler):
    """
    Each trial has a sampler of its own, seeded with the trial's number. With one seed for all, processes that share a study
    would draw the same trials, and what goes on those that the beginning has drawn.

    :param make: seed -> sampler
    :param seed: seed of the search; None draws anew each time
    """

    def __init__(self, make: Callable[[int | None], BaseSampler], seed: int | None):
        self.make, self.seed = make, seed
        self.start: dict[str, Any] = {}
        self.samplers: dict[int, BaseSampler] = {}

    def of(self, trial: FrozenTrial) -> BaseSampler:
        """The sampler of a trial, made when it is first asked for."""
        if trial.number not in self.samplers:
            entropy = None if self.seed is None else np.random.SeedSequence([self.seed, trial.number])
            sampler = self.make(None if entropy is None else int(entropy.generate_state(1)[0]))
            if trial.number == 0 and self.start:
                with experimental():
                    sampler = optuna.samplers.PartialFixedSampler(self.start, sampler)
            self.samplers[trial.number] = sampler
        return self.samplers[trial.number]

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self.of(trial).before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.of(trial).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self.of(trial).after_trial(study, trial, state, values)
        del self.samplers[trial.number]


def make_sampler(name: SamplerName, constrained: bool, seed: int | None) -> BaseSampler:
    """
    :param name: ``tpe``, ``nsga2`` or ``random``
    :param constrained: whether there is a constraint on the return
    :param seed: None draws anew each time
    :return: Optuna's sampler
    """
    settings: dict[str, Any] = {"seed": seed}
    if constrained and name != "random" and not SETS_CONSTRAINTS:
        settings["constraints_func"] = lambda trial: (trial.user_attrs[CONSTRAINT],)
    with experimental():
        if name == "nsga2":
            # Generations of the default size would leave a search of this cost without a second one
            return optuna.samplers.NSGAIISampler(population_size=10, **settings)
        if name == "random":
            return optuna.samplers.RandomSampler(**settings)
        return optuna.samplers.TPESampler(constant_liar=True, **settings)


def note_constraint(trial: Trial, loss: float) -> None:
    """
    Note what samplers are to know of a trial's constraint.

    :param trial: a trial
    :param loss: by how much its return misses what has to be kept; not above 0 where it does not
    """
    if SETS_CONSTRAINTS:
        trial.set_constraint("return", loss)
    trial.set_user_attr(CONSTRAINT, loss)
