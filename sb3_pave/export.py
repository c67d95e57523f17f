"""A trained policy as an ONNX graph, from raw observation to environment-scale action."""

from __future__ import annotations

import inspect
import logging
import os
import pickle
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_pave.evaluation.networks import actor_output, evaluation_mode

#: Largest difference from ``model.predict``, of actions in units of half their range (or in their own, if that is larger)
TOLERANCE = 1e-5
# What onnxruntime has long had every operator of
_OPSET = 18
_CHECKED_OBSERVATIONS = 64


class ExportError(Exception):
    """The policy can't be exported; the message says why."""


def export_onnx(
    model: BaseAlgorithm,
    path: str | os.PathLike,
    vec_normalize: VecNormalize | str | os.PathLike | None = None,
    overwrite: bool = False,
) -> float:
    """
    Write the deterministic policy as ONNX. Normalisation, preprocessing, mean, tanh and rescaling are inside the graph.

    The input is ``observation``, or one input for each key of a ``Dict`` space, of shape ``(batch, *shape)`` and float32
    (integers keep their type; images are channel-first, as ``model.observation_space`` has them); the output is ``action``
    of shape ``(batch, *action_shape)`` in the environment's scale. Before the file is written, onnxruntime runs the graph
    on random observations and its actions are compared with those of ``model.predict``.

    :param model: TD3, DDPG, SAC, TQC, CrossQ, PPO, A2C or their PAVE forms, with continuous actions
    :param path: the file to write
    :param vec_normalize: the ``VecNormalize`` wrapper it was trained with, or the file that it was saved to
    :param overwrite: whether to replace an existing file
    :return: the largest difference found, in the unit of :data:`TOLERANCE`
    :raises ExportError: if the policy can't be exported or the graph does not agree with ``model.predict``
    :raises FileExistsError: if the file exists
    :raises ImportError: if onnx, onnxruntime or, where PyTorch's exporter needs it, onnxscript is missing
    """
    _require_packages()
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists: choose another name, or overwrite it")
    if not isinstance(model.action_space, spaces.Box):
        raise ExportError(f"Only continuous actions can be exported; this model has {model.action_space}")
    normalization = _load_normalization(vec_normalize)
    graph = _PolicyGraph(model.policy, normalization)
    observations = _random_observations(model.observation_space, normalization)
    with evaluation_mode(model.policy):
        try:
            expected_shape = graph(*(th.as_tensor(value, device=model.device) for value in observations.values())).shape
        except (ValueError, RuntimeError) as error:
            raise ExportError(f"The policy of this {type(model).__name__} can't be exported: {error}") from error
        assert expected_shape == (_CHECKED_OBSERVATIONS, *model.action_space.shape)
        proto = _to_onnx(graph, observations, model.device)
    difference = _compare(proto, model, normalization, observations)
    if not difference <= TOLERANCE:
        raise ExportError(f"The exported graph differs from model.predict by {difference:.2g}: nothing was written")
    path.write_bytes(proto)
    return difference


class _PolicyGraph(nn.Module):
    """The policy as a function of raw observations, one argument for each entry."""

    def __init__(self, policy: BasePolicy, normalization: VecNormalize | None):
        super().__init__()
        self.policy = policy
        self.names = _names(policy.observation_space)
        self.clip = 0.0 if normalization is None else float(normalization.clip_obs)
        self.statistics = {
            name: (th.as_tensor(mean, device=policy.device), th.as_tensor(scale, device=policy.device))
            for name, (mean, scale) in _statistics(normalization, policy.observation_space).items()
        }
        space = policy.action_space
        assert isinstance(space, spaces.Box)
        self.action_shape = space.shape
        self.low, self.high = (
            th.as_tensor(bound.ravel(), dtype=th.float32, device=policy.device) for bound in (space.low, space.high)
        )

    def forward(self, *observations: th.Tensor) -> th.Tensor:
        entries = {name: self._normalize(name, value) for name, value in zip(self.names, observations, strict=True)}
        space = self.policy.observation_space
        raw = entries if isinstance(space, spaces.Dict) else entries["observation"]
        inputs = preprocess_obs(raw, space, normalize_images=self.policy.normalize_images)
        output = actor_output(self.policy, inputs)  # type: ignore[arg-type]
        if self.policy.squash_output:
            action = self.low + 0.5 * (output + 1.0) * (self.high - self.low)
        else:
            action = output.clamp(self.low, self.high)
        return action.reshape(-1, *self.action_shape)

    def _normalize(self, name: str, observation: th.Tensor) -> th.Tensor:
        if name not in self.statistics:
            return observation
        mean, scale = self.statistics[name]
        # In float64, as VecNormalize does it: means may be large beside deviations
        return ((observation.double() - mean) / scale).clamp(-self.clip, self.clip).float()


def _to_onnx(graph: _PolicyGraph, observations: dict[str, NDArray], device: th.device) -> bytes:
    """The graph, by the exporter that this version of PyTorch recommends."""
    arguments = tuple(th.as_tensor(value, device=device) for value in observations.values())
    common: dict[str, Any] = {"input_names": graph.names, "output_names": ["action"], "opset_version": _OPSET}
    with tempfile.TemporaryDirectory() as folder, _quiet():
        file = os.path.join(folder, "policy.onnx")
        if _has_dynamo_exporter():
            batch = th.export.Dim("batch", min=1)
            shapes = (tuple({0: batch} for _ in arguments),)
            common.update(dynamo=True, external_data=False, dynamic_shapes=shapes, verbose=False)
        else:
            common.update(dynamic_axes={name: {0: "batch"} for name in [*graph.names, "action"]})
        try:
            th.onnx.export(graph, arguments, file, **common)
        except Exception as error:
            raise ExportError(f"PyTorch's ONNX exporter failed on this policy: {error}") from error
        return Path(file).read_bytes()


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch's exporters warn about themselves and about packages they can do without; the graph is checked afterwards."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _compare(
    proto: bytes, model: BaseAlgorithm, normalization: VecNormalize | None, observations: dict[str, NDArray]
) -> float:
    """Largest difference between the graph and ``model.predict`` on a batch and on a single observation."""
    import onnxruntime

    session = onnxruntime.InferenceSession(proto, providers=["CPUExecutionProvider"])
    space = model.action_space
    assert isinstance(space, spaces.Box)
    unit = np.maximum(1.0, np.where(np.isfinite(space.high - space.low), (space.high - space.low) / 2.0, 1.0))
    differences = []
    for count in (len(next(iter(observations.values()))), 1):
        batch = {name: value[:count] for name, value in observations.items()}
        raw: Any = batch if isinstance(model.observation_space, spaces.Dict) else batch["observation"]
        seen = raw if normalization is None else normalization.normalize_obs(raw)
        expected, _ = model.predict(seen, deterministic=True)
        (action,) = session.run(None, batch)
        if action.shape != expected.shape:
            raise ExportError(f"The exported graph answers with shape {action.shape}, model.predict with {expected.shape}")
        differences.append(np.abs(action - expected) / unit)
    return float(max(np.max(difference) for difference in differences))


def _random_observations(space: spaces.Space, normalization: VecNormalize | None) -> dict[str, NDArray]:
    """Samples of the observation space; of a normalised entry, around its mean."""
    rng = np.random.default_rng(0)
    samples = {}
    statistics = _statistics(normalization, space)
    for name, entry in _entries(space).items():
        if name in statistics:
            mean, scale = statistics[name]
            values = mean + scale * rng.normal(size=(_CHECKED_OBSERVATIONS, *mean.shape))
        else:
            entry.seed(0)
            values = np.array([entry.sample() for _ in range(_CHECKED_OBSERVATIONS)])
        is_float = np.issubdtype(values.dtype, np.floating)
        samples[name] = values.astype(np.float32) if is_float else values
    return samples


def _statistics(normalization: VecNormalize | None, space: spaces.Space) -> dict[str, tuple[NDArray, NDArray]]:
    """Mean and scale of each observation entry that ``VecNormalize`` normalises."""
    if normalization is None or not normalization.norm_obs:
        return {}
    moments: Any = normalization.obs_rms
    if not isinstance(moments, dict):
        moments = {"observation": moments}
    result = {}
    for name, moment in moments.items():
        entry = _entries(space).get(name)
        if entry is None or entry.shape != moment.mean.shape:
            raise ExportError(
                f"The VecNormalize statistics of {name!r} have shape {moment.mean.shape}; the model observes "
                f"{'nothing of that name' if entry is None else entry.shape} (stacked frames can't be exported)"
            )
        result[name] = (moment.mean, np.sqrt(moment.var + normalization.epsilon))
    return result


def _load_normalization(vec_normalize: VecNormalize | str | os.PathLike | None) -> VecNormalize | None:
    if vec_normalize is None or isinstance(vec_normalize, VecNormalize):
        return vec_normalize
    try:
        with open(vec_normalize, "rb") as file:
            loaded = pickle.load(file)  # as VecNormalize.load does, without an environment to wrap
    except (OSError, pickle.UnpicklingError, EOFError) as error:
        raise ExportError(f"{vec_normalize} could not be read: {error}") from error
    if not isinstance(loaded, VecNormalize):
        raise ExportError(f"{vec_normalize} holds a {type(loaded).__name__}, not VecNormalize statistics")
    return loaded


def _entries(space: spaces.Space) -> dict[str, spaces.Space]:
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {"observation": space}


def _names(space: spaces.Space) -> list[str]:
    return list(_entries(space))


def _has_dynamo_exporter() -> bool:
    """PyTorch 2.6 made it fit for use and later versions the default; before, the one by tracing is the better one."""
    return "external_data" in inspect.signature(th.onnx.export).parameters


def _require_packages() -> None:
    needed = ["onnx", "onnxruntime", *(["onnxscript"] if _has_dynamo_exporter() else [])]
    for name in needed:
        try:
            __import__(name)
        except ImportError as error:
            raise ImportError(f'Exporting needs {name}: pip install "sb3-pave[export]"') from error
