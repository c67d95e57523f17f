"""The units that scale-free PAVE counts in: the spread of observations and the range of returns, in the replayed data."""

from collections.abc import Callable
from math import isfinite
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.type_aliases import PyTorchObs

_RATE = 0.01  # of the moving averages, per batch
_GROWTH = 2.0  # what a batch can count for, in multiples of the average: a diverging critic grows S by 1 % an update at most
_LOW, _HIGH = 0.05, 0.95  # percentiles between which the range of returns lies


class Scales:
    """
    Moving averages over batches, on the device, changed in place so that recorded updates read them.

    In these units the loss is ``L_TD + λ1 L_MPR(σ s) + λ2 L_VFC + λ3 S E max(0, vᵀ ∇²_aa Q v / d_a + δ S)``, whose terms all
    have the dimension Q²: the paper's loss where ``s = 1``, ``S = 1`` and ``d_a = 1``.

    :param space: the observation space
    :param device: of networks and batches
    :param return_scale: ``S`` to continue from; 0, or what is not finite: none yet
    :param observation_spread: ``s`` to continue from, as ``spread_as_numbers`` gave it; None: none yet
    """

    def __init__(
        self, space: spaces.Space, device: th.device, return_scale: float = 0.0, observation_spread: Any = None
    ) -> None:
        known = float(return_scale) if isfinite(return_scale) else 0.0
        self.return_scale = th.full((), known, device=device)
        self._variances = {key: th.zeros(entry.shape or (), device=device) for key, entry in _vectors(space).items()}
        for key, spread in _by_key(observation_spread).items():
            self._variances[key].copy_(th.as_tensor(spread).square().nan_to_num(0.0, posinf=0.0))

    @property
    def tensors(self) -> list[th.Tensor]:
        """What ``observe`` changes."""
        return [self.return_scale, *self._variances.values()]

    @th.no_grad()
    def observe(
        self,
        returns: th.Tensor,
        observations: PyTorchObs | None = None,
        evaluate: Callable[..., Any] | None = None,
    ) -> None:
        """
        Take a batch into account.

        :param observations: replayed ones, shape (batch, ...) or a dict of such; None: their spread is of no interest
        :param returns: their TD targets, shape (batch, 1); those of quantiles, shape (batch, quantiles), enter by their mean
        :param evaluate: calls a function of tensors with its arguments; None: as it is
        """
        entries = {key: entry for key, entry in _by_key(observations).items() if key in self._variances}
        averages = [self.return_scale, *(self._variances[key] for key in entries)]
        moved = (evaluate or _call)(_moved_by_batch, averages, returns, [*entries.values()])
        for average, value in zip(averages, moved, strict=True):
            average.copy_(value)

    def spread(self, key: str | None = None) -> th.Tensor | None:
        """
        ``s``: the standard deviation of each dimension of an observation; None: such entries have none (images, discrete).

        :param key: of the entry in a Dict space
        """
        return self._variances[key].sqrt() if key in self._variances else None

    def curv_coef_and_delta(self, coef: float, delta: float, action_dim: int) -> tuple[th.Tensor, th.Tensor]:
        """
        The paper's ``λ3`` and ``δ`` that stand for the scale-free ones: ``λ3 S E max(0, c / d_a + δ S)`` is
        ``λ3 S / d_a E max(0, c + δ S d_a)``.

        :param coef: ``λ3`` in units of S
        :param delta: ``δ`` in units of S, per action dimension
        :param action_dim: ``d_a``
        """
        return coef / action_dim * self.return_scale, delta * action_dim * self.return_scale

    def spread_as_numbers(self) -> Any:
        """``s`` as an array, or a dict of arrays for a Dict space; with digits enough for its square to be what it was."""
        arrays = {key: np.asarray(variance.cpu().double().sqrt()) for key, variance in self._variances.items()}
        return arrays.get(None, arrays or None)


def return_range(returns: th.Tensor) -> th.Tensor:
    """
    The distance between the 5th and the 95th percentile.

    :param returns: shape (batch,)
    """
    ordered = returns.sort().values
    low, high = (_percentile(ordered, share) for share in (_LOW, _HIGH))
    return high - low


def _moved_by_returns(scale: th.Tensor, returns: th.Tensor) -> th.Tensor:
    # Without a floor: before the first reward there is no scale, and Curv is silent. Later on, a batch of equal returns says
    # nothing of the scale; growing as slowly as it shrinks, it would be lost where most batches are such. One that is not
    # finite would stay for ever, after parameters and buffer are mended
    value = return_range(returns.mean(dim=1))
    return th.where((value == 0) | ~value.isfinite(), scale, _moved(scale, value, _GROWTH * scale))


def _moved_by_observations(average: th.Tensor, observations: th.Tensor) -> th.Tensor:
    variance = observations.to(average.dtype).var(dim=0, correction=0)
    # A reading that is not finite, which a network of the user's may clean, would stay in the average for ever
    return th.where(variance.isfinite(), _moved(average, variance), average)


def _moved_by_batch(averages: list[th.Tensor], returns: th.Tensor, observations: list[th.Tensor]) -> list[th.Tensor]:
    scale, *variances = averages
    moved = map(_moved_by_observations, variances, observations)
    return [_moved_by_returns(scale, returns), *moved]


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _percentile(ordered: th.Tensor, share: float) -> th.Tensor:
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    # Not by ``lerp``, which weighs from one end or the other: compiled, each would be a graph of its own
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def _moved(average: th.Tensor, value: th.Tensor, most: th.Tensor | None = None) -> th.Tensor:
    """The average with another value; the first value that is not zero is where it begins."""
    counted = value if most is None else th.minimum(value, most)
    return th.where(average == 0, value, average + _RATE * (counted - average))


def _by_key(entries: Any) -> dict[str | None, Any]:
    if entries is None:
        return {}
    return dict(entries) if isinstance(entries, dict) else {None: entries}


def _vectors(space: spaces.Space) -> dict[str | None, spaces.Space]:
    """The entries whose dimensions have units of their own: not images, whose scale is known, and not discrete ones."""
    entries = _by_key(dict(space.spaces) if isinstance(space, spaces.Dict) else space)
    return {key: entry for key, entry in entries.items() if isinstance(entry, spaces.Box) and not is_image_space(entry)}
