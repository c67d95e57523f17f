"""GRAD, gradient-based regularization of the second difference of actions: Lee et al. 2024, arXiv 2407.04315."""

from typing import Any

import torch as th

from sb3_pave.baselines.actions import deterministic_actions
from sb3_pave.baselines.additive import AdditiveMethod
from sb3_pave.baselines.transitions import Transitions, weighted_mean

_EPSILON = 1e-4  # the authors', in the displacement


def second_difference_loss(
    previous_actions: th.Tensor, actions: th.Tensor, next_actions: th.Tensor, weight: th.Tensor
) -> th.Tensor:
    """
    ``E mean[½ (2π(s_t) - π(s_{t+1}) - π(s_{t-1}))² tanh((1/Δ)²)]`` with ``Δ = π(s_{t+1}) - π(s_{t-1}) + 1e-4``, element by
    element, means over batch and action dimensions. The tanh, 1 where the action hardly moves, has no gradient.

    :param previous_actions: ``π(s_{t-1})``, shape (batch, action_dim)
    :param actions: ``π(s_t)``, likewise
    :param next_actions: ``π(s_{t+1})``, likewise
    :param weight: 1 where the three states are of one episode, else 0, shape (batch,)
    """
    displacement = (next_actions - previous_actions + _EPSILON).detach()
    second_difference = 2 * actions - next_actions - previous_actions
    return weighted_mean((0.5 * second_difference.square() * displacement.pow(-2).tanh()).mean(dim=1), weight)


class Grad(AdditiveMethod):
    """
    An SB3 actor-critic whose actor also descends ``temporal_coef`` times GRAD's loss, see ``second_difference_loss``.

    Transitions at the beginning of an episode, which have no state before them, are left out (the authors' code takes the end
    of another episode for it).

    :param args: the host's positional arguments
    :param temporal_coef: ``λT``, weight of the loss
    :param kwargs: the host's keyword arguments
    :raises ValueError: if the weight is negative or not finite, or if the replay buffer is one with hindsight
    """

    method = "grad"
    terms = ("temporal",)
    hyperparameters = ("temporal_coef",)
    needs_predecessor = True

    def __init__(self, *args: Any, temporal_coef: float = 1.0, **kwargs: Any):
        self.temporal_coef = temporal_coef
        super().__init__(*args, **kwargs)

    def _terms(self, batch: Transitions) -> dict[str, th.Tensor]:
        assert batch.previous_observations is not None and batch.has_both is not None
        states = (batch.previous_observations, batch.observations, batch.next_observations)
        previous, actions, next_actions = deterministic_actions(self.actor, *states)
        return {"temporal": second_difference_loss(previous, actions, next_actions, batch.has_both)}
