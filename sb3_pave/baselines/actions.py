"""The deterministic action ``π(s)`` on the [-1, 1] scale, of any SB3 actor."""

from typing import Any

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_pave.method.points import evaluating, stack


def deterministic_actions(actor: Any, *observations: PyTorchObs) -> tuple[th.Tensor, ...]:
    """
    ``π`` at several batches of states, in one forward pass: TD3's output, the tanh of SAC's mean (of gSDE's, too).

    Layers that behave differently in training (batch normalisation, CrossQ's batch renormalisation, dropout) are evaluated as
    in prediction: the states are compared under the running statistics, which do not move, and without a mask. That is the
    policy whose smoothness is measured.

    :param actor: the actor
    :param observations: batches of the same size
    :return: one tensor of shape (batch, action_dim) for each
    """
    with evaluating(actor):
        return actor._predict(stack(list(observations)), deterministic=True).chunk(len(observations))
