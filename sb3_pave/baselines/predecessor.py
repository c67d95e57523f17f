"""The state one step before each transition of a replay batch, which GRAD compares with."""

from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs


class Predecessor(NamedTuple):
    """
    The stored predecessors of a replay batch.

    :param observations: ``s_{t-1}``, shape (batch, ...) or a dict of such; arbitrary where it does not exist
    :param exists: 1 where the buffer really holds ``s_{t-1}``, else 0, shape (batch,)
    """

    observations: PyTorchObs
    exists: th.Tensor


class DrawnSlots:
    """
    Remembers which slots of a replay buffer were drawn last, while in the context.

    SB3's buffers draw rows in ``sample()`` and one environment for each of them in ``_get_samples()``: the latter draw is
    repeated, from the same state of NumPy's generator, which itself is left alone.

    :param replay_buffer: one of SB3's, without hindsight
    """

    def __init__(self, replay_buffer: Any):
        self._replay_buffer = replay_buffer
        self._get_samples = replay_buffer._get_samples
        self._generator = np.random.RandomState()
        self._slots: tuple[np.ndarray, np.ndarray] | None = None
        self._vec_normalize: Any = None
        self._verified = False

    def __enter__(self) -> "DrawnSlots":
        self._replay_buffer._get_samples = self._draw
        return self

    def __exit__(self, *exception: object) -> None:
        del self._replay_buffer._get_samples

    def predecessor(self) -> Predecessor:
        """
        The states before those of the batch drawn last.

        :raises RuntimeError: if the buffer does not draw as SB3's do
        """
        if self._slots is None:
            raise RuntimeError(
                f"{type(self._replay_buffer).__name__} does not draw its batches through _get_samples(), so the states before "
                "them can't be found. Use SB3's ReplayBuffer or a subclass that keeps its _get_samples(), or another method."
            )
        return stored_predecessor(self._replay_buffer, *self._slots, self._vec_normalize)

    def _draw(self, batch_inds: np.ndarray, env: Any = None) -> Any:
        buffer = self._replay_buffer
        self._generator.set_state(np.random.get_state())
        environments = self._generator.randint(0, high=buffer.n_envs, size=(len(batch_inds),))
        replay_data = self._get_samples(batch_inds, env=env)
        if not self._verified:
            stored = th.as_tensor(buffer.actions[batch_inds, environments], device=replay_data.actions.device)
            if not th.equal(stored.to(replay_data.actions.dtype), replay_data.actions):
                raise RuntimeError(
                    f"{type(buffer).__name__}._get_samples() does not choose environments as SB3's buffers do, so the states "
                    "before those of a batch can't be found. Use one environment, SB3's ReplayBuffer, or another method."
                )
            self._verified = True
        self._slots, self._vec_normalize = (batch_inds, environments), env
        return replay_data


def stored_predecessor(
    replay_buffer: Any, rows: np.ndarray, environments: np.ndarray, vec_normalize: Any = None
) -> Predecessor:
    """
    The states before those in some slots of a replay buffer, which stand in the row before.

    There is none where an episode ended in that row (by a timeout, too), where it has been overwritten or not been written
    yet, and where collecting began anew after it, which a memory-optimised buffer can't tell.

    :param replay_buffer: one of SB3's
    :param rows: of the slots, shape (batch,)
    :param environments: of the slots, shape (batch,)
    :param vec_normalize: normalises the observations, as it does those of a batch
    """
    optimized = replay_buffer.optimize_memory_usage
    before = (rows - 1) % replay_buffer.buffer_size
    # The memory-optimised buffer has the newest next observation in the row that is written next
    oldest = (replay_buffer.pos + int(optimized)) % replay_buffer.buffer_size if replay_buffer.full else 0
    exists = (rows != oldest) & (replay_buffer.dones[before, environments] == 0)
    if not optimized:
        nexts = _entries(replay_buffer.next_observations, before, environments)
        for key, current in _entries(replay_buffer.observations, rows, environments).items():
            exists &= (nexts[key] == current).reshape(len(rows), -1).all(axis=1)
    observations = _entries(replay_buffer.observations, before, environments)
    to_torch = replay_buffer.to_torch
    if isinstance(replay_buffer.observations, dict):
        normalized = replay_buffer._normalize_obs(observations, vec_normalize)
        tensors = {key: to_torch(entry) for key, entry in normalized.items()}
    else:
        tensors = to_torch(replay_buffer._normalize_obs(observations[""], vec_normalize))
    return Predecessor(tensors, to_torch(exists.astype(np.float32)))


def _entries(observations: Any, rows: np.ndarray, environments: np.ndarray) -> dict[str, np.ndarray]:
    """Observations in some slots by the keys of a Dict space; others have the key ``""``."""
    by_key = observations if isinstance(observations, dict) else {"": observations}
    return {key: stored[rows, environments] for key, stored in by_key.items()}
