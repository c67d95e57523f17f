"""CAPS, Conditioning for Action Policy Smoothness: Mysore et al. 2021, arXiv 2012.06644."""

from typing import Any

import torch as th

from sb3_pave.algorithms.checks import noise_is_idle
from sb3_pave.baselines.actions import deterministic_actions
from sb3_pave.baselines.additive import AdditiveMethod
from sb3_pave.baselines.transitions import Transitions, weighted_mean
from sb3_pave.method.perturbation import normalised_space, perturb


def half_mean_squared_change(actions: th.Tensor, others: th.Tensor, weight: th.Tensor) -> th.Tensor:
    """
    ``½ MSE(π(s), π(s'))`` or ``½ MSE(π(s), π(s + ε))``, means over batch and action dimensions.

    :param actions: ``π(s)``, shape (batch, action_dim)
    :param others: the actions that they are compared with, likewise
    :param weight: 1 for the transitions that count, else 0, shape (batch,)
    """
    return 0.5 * weighted_mean((others - actions).square().mean(dim=1), weight)


class Caps(AdditiveMethod):
    """
    An SB3 actor-critic whose actor also descends
    ``temporal_coef · ½ MSE(π(s), π(s')) + spatial_coef · ½ MSE(π(s), π(s + ε))`` with ``ε ~ N(0, spatial_sigma² I)``.

    :param args: the host's positional arguments
    :param temporal_coef: ``λT``, weight of the change along a transition
    :param spatial_coef: ``λS``, weight of the change under noise in the state
    :param spatial_sigma: ``σ``, standard deviation of that noise, in the units of the observations that the actor sees: the
        environment's own, as published; normalised ones under ``VecNormalize``; the [0, 1] scale for images. Discrete entries
        stay as they are; where there is nothing else, the term contributes nothing, and a warning says so.
    :param kwargs: the host's keyword arguments
    :raises ValueError: if a value is no number, negative or not finite
    """

    method = "caps"
    terms = ("temporal", "spatial")
    hyperparameters = ("temporal_coef", "spatial_coef", "spatial_sigma")

    # The spatial term has a weight, but no observation to perturb
    _spatial_is_idle = False

    def __init__(
        self, *args: Any, temporal_coef: float = 0.1, spatial_coef: float = 0.5, spatial_sigma: float = 0.2, **kwargs: Any
    ):
        self.temporal_coef = temporal_coef
        self.spatial_coef = spatial_coef
        self.spatial_sigma = spatial_sigma
        super().__init__(*args, **kwargs)

    def _check_arguments(self) -> None:
        super()._check_arguments()
        self._spatial_is_idle = noise_is_idle(
            self, "CAPS's spatial term", "spatial_coef", self._spatial_is_idle, "The temporal one works"
        )

    def _term_coefs(self) -> dict[str, float]:
        coefs = super()._term_coefs()
        return {**coefs, "spatial": 0.0} if self._spatial_is_idle else coefs

    def _terms(self, batch: Transitions) -> dict[str, th.Tensor]:
        states = {"temporal": batch.next_observations} if self.temporal_coef > 0 else {}
        if self._term_coefs()["spatial"] > 0:
            seen = normalised_space(self.observation_space, self._vec_normalize_env)
            states["spatial"] = perturb(batch.observations, seen, self.spatial_sigma)
        actions, *others = deterministic_actions(self.actor, batch.observations, *states.values())
        weights = {"temporal": batch.has_next, "spatial": th.ones_like(batch.has_next)}
        return {
            name: half_mean_squared_change(actions, other, weights[name]) for name, other in zip(states, others, strict=True)
        }

    def _excluded_save_params(self, *args: Any, **kwargs: Any) -> list[str]:
        return [*super()._excluded_save_params(*args, **kwargs), "_spatial_is_idle"]
