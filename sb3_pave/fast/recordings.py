"""Recordings, each for batches of one structure; loading a batch equals moving it to the device."""

from collections.abc import Hashable
from typing import Any

import torch as th

from sb3_pave.fast.capture import Update
from sb3_pave.fast.static_batch import StaticBatch
from sb3_pave.method.batches import leaves

WARM_UPS = 3  # calls before a recording: libraries and optimizers set themselves up in the first ones


class Recording:
    """
    What is recorded, or about to be.

    :param inputs: the memory that it reads
    """

    def __init__(self, inputs: StaticBatch):
        self.inputs = inputs
        self.n_warm_ups = 0
        self.replay: Update | None = None


def loaded(recordings: dict[Any, Recording], batch: Any, kind: Hashable, device: th.device) -> Recording:
    """
    :param recordings: those that there are; gets another one where none fits
    :param batch: on the CPU, or where a buffer of the user's keeps it
    :param kind: of what is recorded, beside the batch's structure
    :param device: where recordings read it
    :return: the recording for such batches, with this one in its memory
    """
    tensors = leaves(batch)
    key = (kind, *[(tensor.shape, tensor.dtype) for tensor in tensors])
    recording = recordings.get(key)
    if recording is None:
        recording = recordings[key] = Recording(StaticBatch(batch, device))
    recording.inputs.load(tensors)
    return recording
