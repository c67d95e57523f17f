"""The policy as a function of raw observations: what is written as ONNX."""

from __future__ import annotations

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_pave.evaluation.networks import NetworkInput, actor_output
from sb3_pave.export.errors import ExportError
from sb3_pave.export.normalization import statistics_of
from sb3_pave.export.spaces import SINGLE, entries_of


class PolicyGraph(nn.Module):
    """
    Raw observation in, environment-scale action out; float32 throughout.

    :param policy: the policy of a model with continuous actions
    :param normalization: the ``VecNormalize`` wrapper it was trained with
    :raises ExportError: if statistics or action bounds don't fit
    """

    def __init__(self, policy: BasePolicy, normalization: VecNormalize | None):
        super().__init__()
        self.policy = policy
        self.names = list(entries_of(policy.observation_space))
        self.statistics = {
            name: _Normalize(mean, scale, float(normalization.clip_obs), policy.device)  # type: ignore[union-attr]
            for name, (mean, scale) in statistics_of(normalization, policy.observation_space).items()
        }
        space = policy.action_space
        assert isinstance(space, spaces.Box)
        self.action_shape = space.shape
        low, high = (np.asarray(bound, np.float64).ravel() for bound in (space.low, space.high))
        with np.errstate(over="ignore"):
            half_range = (high - low).astype(np.float32)
        if policy.squash_output and not np.all(np.isfinite(half_range)):
            raise ExportError(f"The policy scales its actions to {space}, whose width is no finite float32")
        self.low, self.high = (th.as_tensor(_float32(bound), device=policy.device) for bound in (low, high))

    def forward(self, *observations: th.Tensor) -> th.Tensor:
        """
        :param observations: one for each entry, shape ``(batch, *shape)``
        :return: actions, shape ``(batch, *action_shape)``
        """
        return self.act(self.network_input(*observations))

    def network_input(self, *observations: th.Tensor) -> NetworkInput:
        """
        :param observations: one for each entry, shape ``(batch, *shape)``
        :return: normalised and preprocessed
        """
        entries = {
            name: self.statistics[name](value) if name in self.statistics else value
            for name, value in zip(self.names, observations, strict=True)
        }
        space = self.policy.observation_space
        raw = entries if isinstance(space, spaces.Dict) else entries[SINGLE]
        return preprocess_obs(raw, space, normalize_images=self.policy.normalize_images)  # type: ignore[arg-type]

    def act(self, inputs: NetworkInput) -> th.Tensor:
        """
        :param inputs: as from :meth:`network_input`
        :return: actions, shape ``(batch, *action_shape)``
        """
        output = actor_output(self.policy, inputs)
        if self.policy.squash_output:
            action = self.low + 0.5 * (output + 1.0) * (self.high - self.low)
        else:
            action = output.clamp(self.low, self.high)
        return action if len(self.action_shape) == 1 else action.reshape(-1, *self.action_shape)


class _Normalize:
    """
    ``VecNormalize``'s formula to float32's precision, in float32.

    It subtracts in float64, since a mean may be large beside its deviation. Here the mean is the sum of two numbers: taking
    off the first one is exact where it matters (two floats within a factor of two of each other), taking off the second
    one makes good what the first one left out. Wide integers take off the first one as integers.
    """

    def __init__(self, mean: np.ndarray, scale: np.ndarray, clip: float, device: th.device):
        first = _float32(mean)
        whole = np.rint(mean)
        self.integer = th.as_tensor(np.clip(whole, -(2.0**62), 2.0**62).astype(np.int64), device=device)
        self.first = th.as_tensor(first, device=device)
        self.second = th.as_tensor(_float32(mean - first), device=device)
        self.fraction = th.as_tensor(_float32(mean - whole), device=device)
        self.scale = th.as_tensor(_float32(scale), device=device)
        self.clip = clip

    def __call__(self, observation: th.Tensor) -> th.Tensor:
        if observation.dtype in (th.int32, th.int64):
            centred = (observation.long() - self.integer).float() - self.fraction
        else:
            centred = (observation.float() - self.first) - self.second
        return (centred / self.scale).clamp(-self.clip, self.clip)


def _float32(values: np.ndarray) -> np.ndarray:
    """In float32, infinite numbers beyond its range at its last finite ones: ONNX engines differ in what they do with them."""
    largest = np.finfo(np.float32).max
    return np.clip(values, -largest, largest).astype(np.float32)
