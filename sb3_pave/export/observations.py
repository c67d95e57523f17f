"""The observations at which a graph is compared: those of a rollout, the user's, those trained on, or small ones."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.preprocessing import is_image_space, maybe_transpose
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize, unwrap_vec_normalize

from sb3_pave.evaluation.undisturbed import undisturbed
from sb3_pave.export.errors import ExportError
from sb3_pave.export.normalization import statistics_of
from sb3_pave.export.spaces import SINGLE, Entries, as_observations, entries_of, input_type

_ROLLOUT_STEPS = 500
_ROLLOUT_SECONDS = 30.0
_KEPT = 512
_KEPT_IMAGES = 32
# Powers of ten at which small observations are drawn, so many at each
_SCALES = 10.0 ** np.arange(-6, 7)
_PER_SCALE = 24


@dataclass(frozen=True)
class Sample:
    """
    Raw observations.

    :param entries: by entry, as the graph takes them
    :param source: what they are, for messages: "observations of ..."
    """

    entries: Entries
    source: str

    @property
    def size(self) -> int:
        """:return: the number of observations"""
        return len(next(iter(self.entries.values())))


def read_observations(path: str | os.PathLike) -> Any:
    """
    :param path: an array saved by ``numpy.save`` or, for a ``Dict``, one for each entry saved by ``numpy.savez``
    :return: the array, or the arrays by name
    :raises ExportError: if the file can't be read
    """
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            return {name: loaded[name] for name in loaded.files}
    except OSError as error:
        raise ExportError(f"{path} could not be read: {error.strerror or error}") from error
    except Exception as error:  # what a broken file makes NumPy and zipfile raise
        # NumPy's own advice would be to allow what may run foreign code
        raise ExportError(
            f"{path} holds no numbers: save the observations as an array by numpy.save or, of a Dict, one for each key by "
            "numpy.savez"
        ) from error


def given_observations(observations: Any, space: spaces.Space, source: str = "given observations") -> Sample:
    """
    :param observations: raw observations, an array or a dict of arrays, each with or without the batch's axis
    :param space: the observation space of the model
    :param source: what they are
    :return: the same as the graph takes them
    :raises ExportError: if they are no observations of that space; the message says what is wrong
    """
    expected = entries_of(space)
    if isinstance(space, spaces.Dict):
        if not hasattr(observations, "keys"):
            raise ExportError(f"The {source} are a single array; the model observes a Dict of {', '.join(expected)}")
    elif hasattr(observations, "keys"):
        if len(observations) != 1:
            raise ExportError(f"The {source} are {len(observations)} arrays; the model observes a single one")
        observations = {SINGLE: next(iter(observations.values()))}
    else:
        observations = {SINGLE: observations}
    if set(observations) != set(expected):
        raise ExportError(f"The {source} are of {', '.join(observations)}; the model observes {', '.join(expected)}")
    entries = {name: _checked(observations[name], entry, name, source) for name, entry in expected.items()}
    sizes = {name: len(value) for name, value in entries.items()}
    if len(set(sizes.values())) > 1 or 0 in sizes.values():
        raise ExportError(f"The {source} hold {', '.join(f'{size} of {name!r}' for name, size in sizes.items())}")
    return Sample(entries, source)


def rollout_observations(model: BaseAlgorithm, env: gym.Env | VecEnv, normalization: VecNormalize | None) -> Sample:
    """
    What the deterministic policy observes in an environment.

    Statistics of a ``VecNormalize`` around the environment are neither used nor changed; the environment itself is reset
    and stepped. If the model trains in it, its next ``learn()`` begins with a new episode.

    :param model: the model
    :param env: the environment or vector environment
    :param normalization: the ``VecNormalize`` wrapper that the model was trained with
    :return: raw observations of at least one step, at most 500 or 30 seconds of them
    :raises ExportError: if the environment fails or is not that of the model
    """
    if env.action_space != model.action_space:
        raise ExportError(f"The model acts in {model.action_space}, the environment takes {env.action_space}")
    vec_env = env if isinstance(env, VecEnv) else DummyVecEnv([lambda: env])
    space, seen = model.observation_space, []
    name = _name_of(vec_env)
    source = f"observations of a rollout in {name}"
    stop = time.monotonic() + _ROLLOUT_SECONDS
    normalize = _normalizer(normalization)
    with undisturbed(model, vec_env, seeded=True), _raw(vec_env):
        try:
            vec_env.seed(0)
            observations = vec_env.reset()
            for _ in range(-(-_ROLLOUT_STEPS // vec_env.num_envs)):
                sample = given_observations(observations, space, source)
                seen.append(sample.entries)
                action, _ = model.predict(normalize(as_observations(sample.entries, space)), deterministic=True)
                observations, _, _, _ = vec_env.step(action)
                if time.monotonic() > stop:
                    break
        except ExportError:
            raise
        except Exception as error:  # whatever an environment raises
            raise ExportError(f"The rollout in {name} failed: {type(error).__name__}: {error}") from error
    return _thinned({entry: np.concatenate([one[entry] for one in seen]) for entry in seen[0]}, space, source)


def recorded_observations(model: BaseAlgorithm, normalization: VecNormalize | None) -> Sample | None:
    """
    :param model: the model
    :param normalization: the ``VecNormalize`` wrapper it was trained with
    :return: raw observations that it was trained on, from its replay or rollout buffer; None if it holds none
    """
    space = model.observation_space
    buffer = getattr(model, "replay_buffer", None)
    if buffer is None and normalization is None:  # a rollout buffer holds normalised ones
        buffer = getattr(model, "rollout_buffer", None)
    observations = getattr(buffer, "observations", None)
    if buffer is None or observations is None or not buffer.size():
        return None
    stored = observations if isinstance(observations, dict) else {SINGLE: observations}
    entries = {}
    for name, entry in entries_of(space).items():
        # A rollout buffer that has been trained on is flat already
        flat = stored[name][: buffer.size()] if stored[name].shape[1] == buffer.n_envs else stored[name]
        entries[name] = flat.reshape(-1, *(entry.shape or ()))
    kind = "replay buffer" if hasattr(model, "replay_buffer") else "rollout buffer"
    thinned = _thinned(entries, space, f"observations of the {kind}")
    return given_observations(as_observations(thinned.entries, space), space, thinned.source)


def drawn_observations(space: spaces.Space, normalization: VecNormalize | None) -> Sample:
    """
    Observations of no environment: around the mean of a normalised entry, by its deviation; else numbers of every size
    from 1e-6 to 1e6 within their bounds, so that some of them are where the actions are inside theirs; else (images,
    categories) any.

    :param space: the observation space of the model
    :param normalization: the ``VecNormalize`` wrapper it was trained with
    :return: raw observations
    """
    rng = np.random.default_rng(0)
    statistics = statistics_of(normalization, space)
    entries = entries_of(space)
    has_images = any(is_image_space(entry) for entry in entries.values())
    scales = np.repeat(_SCALES, 2 if has_images else _PER_SCALE)
    values = {}
    for name, entry in entries.items():
        if name in statistics:
            mean, scale = statistics[name]
            drawn = mean + scale * rng.normal(size=(len(scales), *mean.shape))
            values[name] = _as_input(drawn, entry)
        elif isinstance(entry, spaces.Box) and not is_image_space(entry):
            values[name] = _as_input(_small(entry, scales, rng), entry)
        else:
            entry = copy.deepcopy(entry)  # sampling would move the model's own generator
            entry.seed(0)
            values[name] = np.array([entry.sample() for _ in scales], dtype=input_type(entry))
    if set(statistics) == set(entries):
        source = "observations drawn with VecNormalize's mean and deviation"
    else:
        source = "observations drawn at random" + (
            ", VecNormalize's mean and deviation where it has them" if statistics else ""
        )
    return Sample(values, source)


def _small(space: spaces.Box, scales: NDArray, rng: np.random.Generator) -> NDArray:
    """Normal numbers times each scale, from the point of the bounds that is next to zero, on whose inner side they stay."""
    low, high = (np.clip(bound.astype(np.float64), -1e30, 1e30) for bound in (space.low, space.high))
    centre = np.clip(0.0, low, high)
    offsets = scales.reshape(-1, *[1] * low.ndim) * rng.normal(size=(len(scales), *low.shape))
    offsets = np.where(low == centre, np.abs(offsets), np.where(high == centre, -np.abs(offsets), offsets))
    return np.clip(centre + offsets, low, high)


def _as_input(values: NDArray, space: spaces.Space) -> NDArray:
    dtype = input_type(space)
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        # float64 has not every int64: stay a little inside
        low, high = float(limits.min) / (1.0 + 1e-9), float(limits.max) / (1.0 + 1e-9)
        return np.clip(np.rint(values), low, high).astype(dtype)
    return np.clip(values, np.finfo(np.float32).min, np.finfo(np.float32).max).astype(dtype)


def _checked(values: Any, space: spaces.Space, name: str, source: str) -> NDArray:
    what = f"The {source}" + ("" if name == SINGLE else f" of {name!r}")
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ExportError(f"{what} are no array: {error}") from error
    if array.dtype.kind not in "biuf":
        raise ExportError(f"{what} are of type {array.dtype}, not numbers")
    shape = space.shape or ()
    array = maybe_transpose(array, space)
    if array.shape == shape:
        array = array[None]
    if array.shape[1:] != shape:
        raise ExportError(f"{what} have shape {array.shape}; the model's have (n{''.join(f', {size}' for size in shape)})")
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(input_type(space))
    if not np.all(np.isfinite(cast)):
        raise ExportError(f"{what} hold numbers that are not finite in float32")
    if np.issubdtype(cast.dtype, np.integer) and not np.array_equal(cast, array):
        raise ExportError(f"{what} hold numbers that are no {cast.dtype}")
    if not isinstance(space, spaces.Box) and not all(space.contains(one) for one in cast):
        raise ExportError(f"{what} hold some that are not in {space}")
    return cast


def _thinned(entries: Entries, space: spaces.Space, source: str) -> Sample:
    most = _KEPT_IMAGES if any(is_image_space(entry) for entry in entries_of(space).values()) else _KEPT
    size = len(next(iter(entries.values())))
    kept = np.unique(np.linspace(0, size - 1, min(size, most)).astype(int))
    return Sample({name: value[kept] for name, value in entries.items()}, source)


def _name_of(env: VecEnv) -> str:
    """The id with which the environment was made, else its class; of one in another process, that of what runs it."""
    # Not by get_attr: the process of a SubprocVecEnv ends over what can't be sent
    here = next(iter(getattr(env.unwrapped, "envs", ())), env).unwrapped
    spec = getattr(here, "spec", None)
    return type(here).__name__ if spec is None else str(spec.id)


def _normalizer(normalization: VecNormalize | None) -> Callable[[Any], Any]:
    """What ``VecNormalize`` does to observations, also while the wrapper itself has been told not to."""
    if normalization is None:
        return lambda raw: raw
    twin = object.__new__(type(normalization))  # its own copying wants an environment
    twin.__dict__.update(normalization.__dict__)
    return twin.normalize_obs


@contextmanager
def _raw(env: VecEnv) -> Iterator[None]:
    """The environment without the normalisation of a ``VecNormalize`` around it, whose statistics stand still."""
    wrapper = unwrap_vec_normalize(env)
    if wrapper is None:
        yield
        return
    before = wrapper.training, wrapper.norm_obs
    wrapper.training = wrapper.norm_obs = False
    try:
        yield
    finally:
        wrapper.training, wrapper.norm_obs = before
