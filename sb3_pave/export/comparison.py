"""Whether a graph acts as ``model.predict`` does, to what float32 can tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch as th
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_pave.evaluation.networks import NetworkInput
from sb3_pave.export.errors import ExportError
from sb3_pave.export.graph import PolicyGraph
from sb3_pave.export.observations import Sample
from sb3_pave.export.spaces import Entries, as_observations

#: Largest difference of an action in units of half its range (of its own size, at least 1, where it has no range); where
#: rounding in float32 alone moves it further, that much is allowed
TOLERANCE = 1e-5
# An action nearer to a bound than this looks the same for very different graphs; in units of half the range
_INSIDE = 1e-3
# Where rounding alone may account for more than the first, agreement says nothing; for more than the second, nor does a
# difference (what rounding does is bounded by the action's range, so that it is no longer in proportion)
_TELLING = 1e-3
_UNTOLD = 0.1
# Engines were seen to differ by up to 6 units of :func:`rounding`
_ROUNDINGS = 16.0
_DRAWS = 8
_ENLARGED = 64.0
_CHUNK = 256
# So many are compared alone, too, a batch of one: one of each size that is drawn
_ALONE = 13

#: A graph as a function of raw observations by entry
Graph = Callable[[Entries], NDArray]


@dataclass(frozen=True)
class Comparison:
    """
    How a graph's actions compared with those of ``model.predict``.

    :param difference: the largest difference where float32 tells actions apart, in the unit of :data:`TOLERANCE`
    :param n_actions: how many actions were compared, each component of each observation's action counted
    :param n_inside: how many of them were inside their bounds, and float32 told them apart: where a wrong graph would show
    :param n_observations: at how many observations
    :param source: what observations these were
    """

    difference: float
    n_actions: int
    n_inside: int
    n_observations: int
    source: str

    def __str__(self) -> str:
        return (
            f"its actions differ from model.predict by at most {self.difference:.1e} of half their range at "
            f"{self.n_observations} {self.source}; {self.n_inside} of the {self.n_actions} compared were inside their bounds"
        )


def compare(
    run: Graph,
    model: BaseAlgorithm,
    normalization: VecNormalize | None,
    graph: PolicyGraph,
    sample: Sample,
    tolerance: float | None = None,
) -> Comparison:
    """
    Compare the graph with ``model.predict``.

    :param run: the exported graph
    :param model: the model
    :param normalization: the ``VecNormalize`` wrapper it was trained with
    :param graph: what was exported, to learn how far rounding moves the actions
    :param sample: where to compare
    :param tolerance: largest difference, in the unit of :data:`TOLERANCE`; None for :data:`TOLERANCE` or what rounding in
        float32 accounts for, whichever is larger
    :return: what was found
    :raises ExportError: if they disagree
    """
    chunks = [slice(start, start + _CHUNK) for start in range(0, sample.size, _CHUNK)]
    parts = [_differences(run, model, normalization, sample, rows) for rows in chunks]
    difference, unit, inside = (np.concatenate(each) for each in zip(*parts, strict=True))
    for row in np.unique(np.linspace(0, sample.size - 1, _ALONE).astype(int)):
        alone, _, _ = _differences(run, model, normalization, sample, slice(row, row + 1))
        difference[row] = np.maximum(difference[row], alone[0])
    if tolerance is None:
        moved = np.concatenate([rounding(graph, _rows(sample, rows)) for rows in chunks])
        allowed = np.maximum(TOLERANCE, _ROUNDINGS * moved / unit)
    else:
        allowed = np.full_like(unit, tolerance)
    telling = allowed <= (_TELLING if tolerance is None else tolerance)
    allowed = np.where(allowed <= _UNTOLD, allowed, np.inf) if tolerance is None else allowed
    if not np.all(difference <= allowed):
        worst = np.unravel_index(np.argmax(np.nan_to_num(difference / allowed, nan=np.inf)), difference.shape)
        raise ExportError(
            f"The exported graph differs from model.predict by {difference[worst]:.2g} of half the action range, where "
            f"{allowed[worst]:.2g} is the tolerance, at one of {sample.size} {sample.source}: nothing was written"
        )
    largest = float(np.max(difference, where=telling, initial=0.0))
    return Comparison(largest, difference.size, int(np.sum(inside & telling)), sample.size, sample.source)


def rounding(graph: PolicyGraph, entries: Entries) -> NDArray:
    """
    How far rounding in float32 moves each action, about.

    A matrix product computed in float32 is the exact product of numbers that are each off by about one part in 2^23 (it is
    backward stable, whatever the order of its sums). So parameters and network inputs are each changed by that part of
    themselves, up or down at random. The changes are enlarged while the actions are computed, so that these computations'
    own rounding does not count, and scaled back after.

    :param graph: the policy
    :param entries: raw observations by entry
    :return: the largest of a few draws in the actions' own unit, shape ``(batch, *action_shape)``
    """
    unit = float(th.finfo(th.float32).eps)
    generator = th.Generator().manual_seed(0)

    def changed(values: th.Tensor) -> th.Tensor:
        if not values.is_floating_point():
            return values
        signs = 2.0 * th.randint(2, values.shape, generator=generator).to(values) - 1.0
        return values * (1.0 + _ENLARGED * unit * signs)

    act = _Act(graph)
    parameters = {name: value.detach() for name, value in (*act.named_parameters(), *act.named_buffers())}
    with th.no_grad():
        inputs = graph.network_input(*(th.as_tensor(value, device=graph.low.device) for value in entries.values()))
        action = act(inputs)
        moved = th.zeros_like(action)
        for _ in range(_DRAWS):
            values = {name: changed(value) for name, value in parameters.items()}
            those = {key: changed(value) for key, value in inputs.items()} if isinstance(inputs, dict) else changed(inputs)
            moved = th.maximum(moved, (th.func.functional_call(act, values, (those,)) - action).abs())
        # Rescaling multiplies by half the range and adds the lower bound, so that its terms may be larger than their sum
        terms = th.maximum(graph.low.abs(), graph.high.abs()).reshape(graph.action_shape)
        return (moved / _ENLARGED + unit * (terms if graph.policy.squash_output else action.abs())).double().cpu().numpy()


class _Act(nn.Module):
    """What is behind normalisation and preprocessing, as a module whose parameters can be replaced for a call."""

    def __init__(self, graph: PolicyGraph):
        super().__init__()
        self.graph = graph

    def forward(self, inputs: NetworkInput) -> th.Tensor:
        return self.graph.act(inputs)


def _differences(
    run: Graph, model: BaseAlgorithm, normalization: VecNormalize | None, sample: Sample, rows: slice
) -> tuple[NDArray, NDArray, NDArray]:
    """By how many units actions differ at observations given together, the units, and which are inside their bounds."""
    entries = _rows(sample, rows)
    ours, expected = run(entries), _predict(model, normalization, entries)
    if not np.all(np.isfinite(ours)):
        raise ExportError(
            f"The exported graph answers with actions that are not finite at some of {sample.size} {sample.source}"
        )
    if ours.shape != expected.shape:
        raise ExportError(f"The exported graph answers with shape {ours.shape}, model.predict with {expected.shape}")
    assert isinstance(model.action_space, spaces.Box)
    unit, inside = _units(model.action_space, expected.astype(np.float64))
    return np.abs(ours.astype(np.float64) - expected) / unit, unit, inside


def _rows(sample: Sample, rows: slice) -> Entries:
    return {name: value[rows] for name, value in sample.entries.items()}


def _predict(model: BaseAlgorithm, normalization: VecNormalize | None, entries: Entries) -> NDArray:
    raw = as_observations(entries, model.observation_space)
    try:
        action, _ = model.predict(raw if normalization is None else normalization.normalize_obs(raw), deterministic=True)
    except Exception as error:  # a policy of the user's may raise anything
        raise ExportError(
            f"model.predict failed, with which the graph is compared: {type(error).__name__}: {error}"
        ) from error
    if not np.all(np.isfinite(action)):
        raise ExportError("model.predict answers with actions that are not finite")
    return action


def _units(space: spaces.Box, actions: NDArray) -> tuple[NDArray, NDArray]:
    """The unit in which a difference of each action counts, and which of them are inside their bounds."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    with np.errstate(over="ignore"):
        half = (high - low) / 2.0
    has_range = np.isfinite(half) & (half > 0.0) & (half < np.finfo(np.float32).max / 4)
    unit = np.where(has_range, half, np.maximum(1.0, np.abs(actions)))
    return unit, (actions - low > _INSIDE * unit) & (high - actions > _INSIDE * unit)
