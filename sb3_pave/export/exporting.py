"""Export: check, trace, compare, write."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize

from sb3_pave.evaluation.networks import evaluation_mode
from sb3_pave.export.comparison import Comparison, Graph, compare
from sb3_pave.export.destination import destination
from sb3_pave.export.errors import ExportError
from sb3_pave.export.graph import PolicyGraph
from sb3_pave.export.normalization import load_normalization
from sb3_pave.export.observations import (
    Sample,
    drawn_observations,
    given_observations,
    recorded_observations,
    rollout_observations,
)
from sb3_pave.export.onnx_file import DEFAULT_OPSET, check_opset, check_packages, output_name, to_onnx
from sb3_pave.export.spaces import Entries


@dataclass(frozen=True)
class Exported:
    """
    What was written.

    :param path: the file
    :param inputs: names of its inputs
    :param output: name of its output
    :param normalized: those of the inputs that it normalises as ``VecNormalize`` does
    :param comparison: how its actions compared with those of ``model.predict``
    """

    path: Path
    inputs: tuple[str, ...]
    output: str
    normalized: tuple[str, ...]
    comparison: Comparison


def export_onnx(
    model: BaseAlgorithm,
    path: str | os.PathLike,
    vec_normalize: VecNormalize | str | os.PathLike | None = None,
    overwrite: bool = False,
    *,
    env: gym.Env | VecEnv | None = None,
    observations: NDArray | dict[str, NDArray] | None = None,
    tolerance: float | None = None,
    opset: int = DEFAULT_OPSET,
    batch_size: int | None = None,
) -> Exported:
    """
    Write the deterministic policy as ONNX. Normalisation, preprocessing, mean, tanh and rescaling are inside the graph.

    The input is ``observation``, or one input for each key of a ``Dict`` space, of shape ``(batch, *shape)`` and float32
    (integers keep their type; images are channel-first, as ``model.observation_space`` has them); the output is ``action``
    (``action_output`` where an input is called that) of shape ``(batch, *action_shape)`` in the environment's scale.

    Before the file is written, onnxruntime runs the graph and its actions are compared with those of ``model.predict``: at
    ``observations``, else at those of a rollout in ``env``, else at those in the model's replay or rollout buffer, else
    at ones drawn with the mean and deviation of ``vec_normalize``, else at random ones of every size within their bounds; and
    at the next of these where all actions are at a bound.

    :param model: TD3, DDPG, SAC, TQC, CrossQ, PPO, A2C or their PAVE forms, with continuous actions
    :param path: the file to write; its folder is made
    :param vec_normalize: the ``VecNormalize`` wrapper it was trained with, or the file that it was saved to; by default, the
        one around the model's own environment or else around ``env``
    :param overwrite: whether to replace an existing file
    :param env: the environment, to compare where the policy runs; it is reset and stepped
    :param observations: raw observations to compare at, of shape ``(n, *shape)``, or a dict of such arrays
    :param tolerance: largest difference of actions in units of half their range; None for 1e-5, or what rounding in float32
        accounts for where that is more
    :param opset: version of ONNX's operators
    :param batch_size: a fixed number of observations at a time, for engines that want fixed shapes; None leaves it open
    :return: what was written, and how it compared
    :raises ExportError: if the policy can't be exported, the graph does not agree with ``model.predict``, or no compared
        action was inside its bounds, where a difference would show
    :raises FileExistsError: if the file exists
    :raises ImportError: if onnx, onnxruntime or, where PyTorch's exporter needs it, onnxscript is missing
    """
    check_packages()
    check_opset(opset)
    _check_numbers(tolerance, batch_size)
    if not isinstance(model.action_space, spaces.Box):
        raise ExportError(f"Only continuous actions can be exported; this model has {model.action_space}")
    normalization = _normalization(model, vec_normalize, env)
    graph = PolicyGraph(model.policy, normalization)
    given = None if observations is None else given_observations(observations, model.observation_space)
    with destination(path, overwrite) as write, _exactly(model):
        drawn = drawn_observations(model.observation_space, normalization)
        arguments = _arguments(drawn.entries, batch_size or 2, model.device)
        _check_traceable(graph, arguments, model)
        proto = to_onnx(graph, arguments, graph.names, fixed=batch_size is not None, opset=opset)
        content = proto.SerializeToString()
        run = _onnxruntime(content, batch_size)
        comparison = None
        for sample in _samples(model, normalization, given, env, drawn):
            comparison = compare(run, model, normalization, graph, sample, tolerance)
            if comparison.n_inside:
                break
        assert comparison is not None
        if not comparison.n_inside:
            raise ExportError(
                f"None of the {comparison.n_actions} actions compared at {comparison.n_observations} {comparison.source} was "
                "inside its bounds and where float32 can tell actions apart, so that a wrong graph would look the same: "
                "nothing was written. Compare at observations where the policy is not at its limits"
            )
        write(content)
    return Exported(Path(path), tuple(graph.names), output_name(graph.names), tuple(graph.statistics), comparison)


def _samples(
    model: BaseAlgorithm,
    normalization: VecNormalize | None,
    given: Sample | None,
    env: gym.Env | VecEnv | None,
    drawn: Sample,
) -> Iterator[Sample]:
    """Where to compare: at the first one, and at the next as long as every action was at a bound."""
    if given is not None:
        yield given
        return
    if env is not None:
        yield rollout_observations(model, env, normalization)
    recorded = recorded_observations(model, normalization)
    if recorded is not None:
        yield recorded
    yield drawn


def _normalization(
    model: BaseAlgorithm, vec_normalize: VecNormalize | str | os.PathLike | None, env: gym.Env | VecEnv | None
) -> VecNormalize | None:
    if vec_normalize is not None:
        return load_normalization(vec_normalize)
    # Around the environment to compare in, there may be a fresh one
    for around in (model.get_env(), env):
        wrapper = unwrap_vec_normalize(around) if isinstance(around, VecEnv) else None
        if wrapper is not None:
            return wrapper
    return None


def _check_numbers(tolerance: float | None, batch_size: int | None) -> None:
    # Written so that NaN is refused, too
    if tolerance is not None and not (_is_number(tolerance) and 0.0 < tolerance < 1.0):
        raise ExportError(f"The tolerance is a part of half the action range, between 0 and 1; got {tolerance!r}")
    if batch_size is not None and not (_is_number(batch_size, int) and batch_size >= 1):
        raise ExportError(f"The batch size is a whole number from 1; got {batch_size!r}")


def _is_number(value: object, kind: type | tuple[type, ...] = (int, float)) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _arguments(entries: Entries, size: int, device: th.device) -> tuple[th.Tensor, ...]:
    return tuple(th.as_tensor(np.resize(value, (size, *value.shape[1:])), device=device) for value in entries.values())


def _check_traceable(graph: PolicyGraph, arguments: tuple[th.Tensor, ...], model: BaseAlgorithm) -> None:
    try:
        with th.no_grad():
            action = graph(*arguments)
    except Exception as error:  # a policy of the user's may raise anything
        raise ExportError(f"The policy of this {type(model).__name__} can't be exported: {error}") from error
    assert isinstance(model.action_space, spaces.Box)
    if action.shape[1:] != model.action_space.shape:
        shape = tuple(action.shape[1:])
        raise ExportError(f"The policy answers with shape {shape}; the actions have {model.action_space.shape}")
    if not th.isfinite(action).all():
        raise ExportError("The policy answers with actions that are not finite")


def _onnxruntime(content: bytes, batch_size: int | None) -> Graph:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class
        raise ExportError(f"onnxruntime refuses the exported graph: {error}") from error

    def run_once(entries: Entries) -> NDArray:
        try:
            return session.run(None, entries)[0]
        except Exception as error:
            raise ExportError(f"onnxruntime can't run the exported graph: {error}") from error

    def run(entries: Entries) -> NDArray:
        if batch_size is None:
            return run_once(entries)
        size = len(next(iter(entries.values())))
        batches = math.ceil(size / batch_size)
        filled = {name: np.resize(value, (batches * batch_size, *value.shape[1:])) for name, value in entries.items()}
        parts = [
            run_once({name: value[i * batch_size : (i + 1) * batch_size] for name, value in filled.items()})
            for i in range(batches)
        ]
        return np.concatenate(parts)[:size]

    return run


@contextmanager
def _exactly(model: BaseAlgorithm) -> Iterator[None]:
    """Networks as they are after training, and on a GPU all bits of float32."""
    backends: Any = th.backends
    before = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32
    backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = False
    try:
        with evaluation_mode(model.policy):
            yield
    finally:
        backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32 = before
