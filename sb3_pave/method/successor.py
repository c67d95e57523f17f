"""Replay batches together with the state one step after each observation, which VFC and rivals compare with."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs, ReplayBufferSamples

_ATTEMPTS = 5  # another thread may use NumPy's generator, too, at the wrong moment


class Successor(NamedTuple):
    """
    The stored successors of a replay batch.

    :param observations: ``s_{t+1}``, shape (batch, ...) or a dict of such
    :param exists: 1 where the buffer really holds ``s_{t+1}``, else 0, shape (batch,); None: everywhere
    :param dones: 1 where ``s_{t+1}`` is terminal, else 0, shape (batch, 1); None: as the batch itself says
    """

    observations: PyTorchObs
    exists: th.Tensor | None
    dones: th.Tensor | None = None


def sample_with_successor(
    replay_buffer: Any, draw: Callable[[], ReplayBufferSamples]
) -> tuple[ReplayBufferSamples, Successor]:
    """
    A batch and its one-step successors.

    :param replay_buffer: any SB3 replay buffer
    :param draw: draws the batch, by the buffer's ``sample``
    :raises ValueError: if an n-step buffer cannot be asked for the one-step successors of the same transitions
    """
    if getattr(replay_buffer, "n_steps", 1) > 1:
        return _sample_n_step(replay_buffer, draw)
    replay_data = draw()
    if getattr(replay_data, "discounts", None) is not None and not hasattr(replay_buffer, "n_steps"):
        raise ValueError(
            f"{type(replay_buffer).__name__} returns discounts, as n-step buffers do, but has no attribute n_steps through "
            "which the one-step successors could be asked for. Give it one (see SB3's NStepReplayBuffer), or switch off what "
            "needs them (PAVE's VFC by vfc_coef=0)."
        )
    exists = None
    if getattr(replay_buffer, "optimize_memory_usage", False):
        # The slot after the last step of an episode holds the first observation of the next one
        exists = 1 - replay_data.dones.flatten()
    return replay_data, Successor(replay_data.next_observations, exists)


def _sample_n_step(replay_buffer: Any, draw: Callable[[], ReplayBufferSamples]) -> tuple[ReplayBufferSamples, Successor]:
    """An n-step batch holds ``s_{t+n}``: repeat its draw with ``n_steps = 1``."""
    for _ in range(_ATTEMPTS):
        replay_data, one_step = _drawn_twice(replay_buffer, draw)
        if th.equal(one_step.actions, replay_data.actions):
            return replay_data, Successor(one_step.next_observations, None, one_step.dones)
    raise ValueError(
        f"The state one step after each observation is needed, but {type(replay_buffer).__name__} with "
        f"n_steps={replay_buffer.n_steps} does not draw the same transitions again from the same state of np.random. Use "
        "SB3's NStepReplayBuffer or n_steps=1, or switch off what needs it (PAVE's VFC by vfc_coef=0)."
    )


def _drawn_twice(
    replay_buffer: Any, draw: Callable[[], ReplayBufferSamples]
) -> tuple[ReplayBufferSamples, ReplayBufferSamples]:
    """A batch, and the same with ``n_steps = 1``: both from the same state of NumPy's generator."""
    before, n_steps = np.random.get_state(), replay_buffer.n_steps
    replay_data = draw()
    after = np.random.get_state()
    np.random.set_state(before)
    replay_buffer.n_steps = 1
    try:
        return replay_data, draw()
    finally:
        replay_buffer.n_steps = n_steps
        np.random.set_state(after)
