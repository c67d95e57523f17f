"""What the actor-side methods compare: a replay batch with the states around it, and which of them exist."""

from typing import NamedTuple

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs, ReplayBufferSamples

from sb3_pave.baselines.predecessor import Predecessor
from sb3_pave.method.successor import Successor


class Transitions(NamedTuple):
    """
    States along episodes. Weights are 1 for the transitions that count and 0 for the others, shape (batch,).

    :param observations: ``s_t``, shape (batch, ...) or a dict of such, as the actor takes them
    :param next_observations: ``s_{t+1}``, likewise
    :param has_next: where the buffer holds ``s_{t+1}``
    :param goes_on: where it does and ``s_{t+1}`` is not terminal
    :param previous_observations: ``s_{t-1}``, likewise; None where they were not asked for
    :param has_both: where the buffer holds ``s_{t-1}`` and ``s_{t+1}``
    """

    observations: PyTorchObs
    next_observations: PyTorchObs
    has_next: th.Tensor
    goes_on: th.Tensor
    previous_observations: PyTorchObs | None = None
    has_both: th.Tensor | None = None


def transitions(replay_data: ReplayBufferSamples, successor: Successor, predecessor: Predecessor | None) -> Transitions:
    """
    :param replay_data: the batch
    :param successor: its one-step successors
    :param predecessor: its predecessors, or None
    """
    dones = replay_data.dones if successor.dones is None else successor.dones
    has_next = th.ones_like(dones.flatten()) if successor.exists is None else successor.exists
    goes_on = has_next * (1 - dones.flatten())
    states = (replay_data.observations, successor.observations, has_next, goes_on)
    if predecessor is None:
        return Transitions(*states)
    return Transitions(*states, predecessor.observations, has_next * predecessor.exists)


def weighted_mean(values: th.Tensor, weight: th.Tensor) -> th.Tensor:
    """
    Mean over the transitions that count; 0 if there is none.

    :param values: shape (batch,)
    :param weight: 1 for those that count, else 0, shape (batch,)
    """
    return (values * weight).sum() / weight.sum().clamp(min=1)
