"""Replay batches that stay on the CPU; each equals what the buffer gives on the agent's device."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.buffers import BaseBuffer

from sb3_pave.fast.watch import are_known


@contextmanager
def sampling_on_cpu(replay_buffer: Any) -> Iterator[None]:
    """
    Batches stay on the CPU in this context, to be copied to the device in one piece. A buffer of the user's, which may
    keep its data on the device, is left alone.

    :param replay_buffer: the agent's
    """
    if not are_known(type(replay_buffer).__mro__):
        yield
        return
    before = replay_buffer.device
    # They are copied there; SB3's own conversion would copy them once more
    converts_as_sb3 = getattr(type(replay_buffer), "to_torch", None) is BaseBuffer.to_torch
    shares = converts_as_sb3 and "to_torch" not in vars(replay_buffer)
    replay_buffer.device = th.device("cpu")
    if shares:
        replay_buffer.to_torch = _shared
    try:
        yield
    finally:
        replay_buffer.device = before
        if shares:
            del replay_buffer.to_torch


def _shared(array: np.ndarray, copy: bool = True) -> th.Tensor:
    return th.as_tensor(array)
