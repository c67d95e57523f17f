"""The noise ``ε`` that MPR adds to the observations, on the scale that the critic sees."""

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_pave.method.scales import Scales

_IMAGE_SCALE = 255.0  # SB3 divides images by it before the critic sees them


def perturb(
    observations: PyTorchObs,
    space: spaces.Space,
    sigma: float,
    normalize_images: bool = True,
    scales: Scales | None = None,
) -> PyTorchObs:
    """
    ``s + ε`` with ``ε ~ N(0, σ² I)``, ready for the critic's own preprocessing.

    Floating-point observations get the noise as they are (normalised, where VecNormalize is in use), images on the
    [0, 1] scale; discrete observations stay as they are. A Dict is perturbed an entry at a time, in its order.

    :param observations: a replay batch's observations, shape (batch, ...) or a dict of such
    :param space: the observation space
    :param sigma: ``σ``
    :param normalize_images: whether the critic divides images by 255
    :param scales: where ``σ`` counts in standard deviations of each dimension; None: in units of the observations
    """

    def noisy(entry: th.Tensor, space: spaces.Space, key: str | None = None) -> th.Tensor:
        scale = noise_scale(space, normalize_images) * sigma
        return _perturb(entry, scale, None if scales is None else scales.spread(key))

    if isinstance(observations, dict):
        assert isinstance(space, spaces.Dict)
        return {key: noisy(entry, space[key], key) for key, entry in observations.items()}
    return noisy(observations, space)


def is_perturbable(space: spaces.Space) -> bool:
    """Whether ``perturb`` changes anything in observations of this space."""
    if isinstance(space, spaces.Dict):
        return any(is_perturbable(entry) for entry in space.values())
    return noise_scale(space) > 0


def noise_scale(space: spaces.Space, normalize_images: bool = True) -> float:
    """
    What ``σ`` is multiplied by before the critic's own preprocessing; 0 for discrete observations.

    :param space: an observation space other than a Dict
    :param normalize_images: whether the critic divides images by 255
    """
    if not isinstance(space, spaces.Box):
        return 0.0
    if is_image_space(space):
        return _IMAGE_SCALE if normalize_images else 1.0
    return 1.0 if space.dtype is not None and space.dtype.kind == "f" else 0.0


def _perturb(observations: th.Tensor, scale: float, spread: th.Tensor | None) -> th.Tensor:
    if scale == 0:
        return observations
    if not observations.is_floating_point():
        observations = observations.float()
    noise = scale * th.randn_like(observations)
    return observations + (noise if spread is None else noise * spread)
