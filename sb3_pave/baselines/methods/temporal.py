"""The plain temporal loss, after De Cooman et al. (2021); the base that DAMPER's authors compare with."""

from typing import Any

import torch as th

from sb3_pave.baselines.actions import deterministic_actions
from sb3_pave.baselines.additive import AdditiveMethod
from sb3_pave.baselines.transitions import Transitions, weighted_mean


def temporal_loss(actions: th.Tensor, next_actions: th.Tensor, weight: th.Tensor) -> th.Tensor:
    """
    ``E ‖π(s') - π(s)‖²``, a sum over the action dimensions.

    :param actions: ``π(s)``, shape (batch, action_dim)
    :param next_actions: ``π(s')``, likewise
    :param weight: 1 where ``s'`` follows ``s`` and is not terminal, else 0, shape (batch,)
    """
    return weighted_mean((next_actions - actions).square().sum(dim=1), weight)


class Temporal(AdditiveMethod):
    """
    An SB3 actor-critic whose actor also descends ``temporal_coef · E ‖π(s') - π(s)‖²``, a mean over transitions that are not
    terminal.

    :param args: the host's positional arguments
    :param temporal_coef: ``λ``, weight of the temporal loss
    :param kwargs: the host's keyword arguments
    :raises ValueError: if the weight is negative or not finite
    """

    method = "temporal"
    terms = ("temporal",)
    hyperparameters = ("temporal_coef",)

    def __init__(self, *args: Any, temporal_coef: float = 0.8, **kwargs: Any):
        self.temporal_coef = temporal_coef
        super().__init__(*args, **kwargs)

    def _terms(self, batch: Transitions) -> dict[str, th.Tensor]:
        actions, next_actions = deterministic_actions(self.actor, batch.observations, batch.next_observations)
        return {"temporal": temporal_loss(actions, next_actions, batch.goes_on)}
