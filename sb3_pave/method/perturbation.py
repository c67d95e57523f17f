"""The noise ``ε`` that MPR adds to the observations, on the scale that the critic sees."""

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.vec_env import VecNormalize

from sb3_pave.method.scales import Scales

_IMAGE_SCALE = 255.0  # SB3 divides images by it, or with normalize_images=False an extractor of the user's does


def perturb(
    observations: PyTorchObs,
    space: spaces.Space,
    sigma: float,
    scales: Scales | None = None,
) -> PyTorchObs:
    """
    ``s + ε`` with ``ε ~ N(0, σ² I)``, ready for the critic's own preprocessing.

    Floating-point observations get the noise as they are (normalised, where VecNormalize is in use), images on the
    [0, 1] scale; discrete observations stay as they are. A Dict is perturbed an entry at a time, in its order.

    :param observations: a replay batch's observations, shape (batch, ...) or a dict of such
    :param space: the observation space, see ``normalised_space``
    :param sigma: ``σ``
    :param scales: where ``σ`` counts in standard deviations of each dimension; None: in units of the observations
    """

    def noisy(entry: th.Tensor, space: spaces.Space, key: str | None = None) -> th.Tensor:
        # Integers are raw even where floats are due: a train() of the user's may draw its batch without normalising it
        is_raw = not entry.is_floating_point() and not is_image_space(space)
        scale = 0.0 if is_raw else noise_scale(space) * sigma
        return _perturb(entry, scale, None if scales is None else scales.spread(key))

    if isinstance(observations, dict):
        assert isinstance(space, spaces.Dict)
        return {key: noisy(entry, space[key], key) for key, entry in observations.items()}
    return noisy(observations, space)


def normalised_space(space: spaces.Space, vec_normalize: VecNormalize | None) -> spaces.Space:
    """
    The space of what the critic sees: whatever VecNormalize normalises has become a float, also where the environment
    observes integers.

    :param space: the environment's observation space
    :param vec_normalize: what normalises the replay buffer's observations, if anything
    """
    if vec_normalize is None or not vec_normalize.norm_obs:
        return space
    if isinstance(space, spaces.Dict):
        keys = vec_normalize.norm_obs_keys or ()
        return spaces.Dict({key: _normalised(entry) if key in keys else entry for key, entry in space.items()})
    return _normalised(space)


def is_perturbable(space: spaces.Space) -> bool:
    """Whether ``perturb`` changes anything in observations of this space."""
    if isinstance(space, spaces.Dict):
        return any(is_perturbable(entry) for entry in space.values())
    return noise_scale(space) > 0


def noise_scale(space: spaces.Space) -> float:
    """
    What ``σ`` is multiplied by before the critic's own preprocessing; 0 for discrete observations.

    :param space: an observation space other than a Dict
    """
    if not isinstance(space, spaces.Box):
        return 0.0
    if is_image_space(space):
        return _IMAGE_SCALE
    return 1.0 if space.dtype is not None and space.dtype.kind == "f" else 0.0


def _normalised(space: spaces.Space) -> spaces.Space:
    if not isinstance(space, spaces.Box) or space.dtype.kind == "f":
        return space
    return spaces.Box(-np.inf, np.inf, space.shape, np.float32)


def _perturb(observations: th.Tensor, scale: float, spread: th.Tensor | None) -> th.Tensor:
    if scale == 0:
        return observations
    if not observations.is_floating_point() or observations.dtype.itemsize < 4:
        # Half precision has no room for the noise
        observations = observations.float()
    noise = scale * th.randn_like(observations)
    return observations + (noise if spread is None else noise * spread)
