"""Return and smoothness when the sensors are noisy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.type_aliases import PolicyPredictor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_pave.evaluation.rollout import Rollout, record_rollout

#: Noise levels of the published protocol
NOISE_LEVELS = (0.01, 0.05, 0.1)

# By these SB3 and gymnasium-robotics know an environment with goals
_GOALS = {"observation", "achieved_goal", "desired_goal"}

Scale = NDArray[np.float64] | dict[str, NDArray[np.float64]]


def evaluate_robustness(
    model: PolicyPredictor,
    env: gym.Env | VecEnv,
    noise_levels: Sequence[float] = NOISE_LEVELS,
    scale: Scale | None = None,
    n_eval_episodes: int = 20,
    deterministic: bool = True,
    seed: int = 0,
    callback: Callable[[dict[str, Any], dict[str, Any]], None] | None = None,
    warn: bool = True,
) -> dict[float, Rollout]:
    r"""
    Episodes in which the policy sees :math:`s + \delta`, :math:`\delta \sim U(-\sigma, \sigma) \odot \sigma_{base}` in each
    dimension, clipped to the observation space (protocol of Lee et al. 2026, arXiv 2601.22970).

    The noise enters where a sensor's does: in the environment's own units, before ``VecNormalize`` or frame stacking.
    Every level starts from the same seed, and level 0 is the plain :func:`~sb3_pave.evaluation.rollout.record_rollout`. The
    agent stays as it was, as there. No sensor reads the ``desired_goal`` of an environment with goals: it has no noise.

    :param model: anything with a ``predict`` method
    :param env: the environment or vector environment
    :param noise_levels: the levels :math:`\sigma`, not negative
    :param scale: :math:`\sigma_{base}` from :func:`observation_scale`; pass a reference model's to give several models the
        same noise. None takes the model's own.
    :param n_eval_episodes: episodes for each level
    :param deterministic: whether to use deterministic actions
    :param seed: seed of the environments and of the noise
    :param callback: passed on to ``evaluate_policy``: called after each step of each environment
    :param warn: whether to warn that the environment has no ``Monitor``
    :return: the recorded episodes for each level
    :raises ValueError: if a level is negative, or the scale does not fit the observations
    """
    for level in noise_levels:
        if not (np.isfinite(level) and level >= 0):
            raise ValueError(f"Noise levels must be finite and not negative; got {level}")
    env = _as_vec_env(env)
    if scale is None and any(level > 0 for level in noise_levels):
        scale = observation_scale(model, env, n_eval_episodes, deterministic, seed, callback, warn)
    results = {}
    for level in noise_levels:
        with _sensors(env) as (noisy_env, sensors):
            sensors.make_noisy(level, scale, seed)
            results[level] = record_rollout(
                model,
                noisy_env,
                n_eval_episodes=n_eval_episodes,
                deterministic=deterministic,
                seed=seed,
                callback=callback,
                warn=warn,
                keep_observations=False,
            )
    return results


def observation_scale(
    model: PolicyPredictor,
    env: gym.Env | VecEnv,
    n_eval_episodes: int = 20,
    deterministic: bool = True,
    seed: int = 0,
    callback: Callable[[dict[str, Any], dict[str, Any]], None] | None = None,
    warn: bool = True,
) -> Scale:
    """
    Standard deviation of each observation dimension along the episodes of a policy, in the environment's own units. The
    agent stays as it was, as with :func:`~sb3_pave.evaluation.rollout.record_rollout`.

    :param model: anything with a ``predict`` method
    :param env: the environment or vector environment
    :param n_eval_episodes: number of episodes
    :param deterministic: whether to use deterministic actions
    :param seed: seed of the environments
    :param callback: passed on to ``evaluate_policy``: called after each step of each environment
    :param warn: whether to warn that the environment has no ``Monitor``
    :return: shape ``observation_shape``, or a dict of such arrays
    """
    with _sensors(_as_vec_env(env)) as (watched_env, sensors):
        sensors.watch()
        record_rollout(
            model,
            watched_env,
            n_eval_episodes=n_eval_episodes,
            deterministic=deterministic,
            seed=seed,
            callback=callback,
            warn=warn,
            keep_observations=False,
        )
        return sensors.standard_deviation()


class _Sensors(VecEnvWrapper):
    """Between the environments and everything that treats their observations: measures them or adds noise to them."""

    def __init__(self, venv: VecEnv):
        super().__init__(venv)
        self.amplitude: Scale | None = None
        self.rng = np.random.default_rng()
        self.watching = False
        # Count, sum and sum of squared deviations of each entry (Welford, batch by batch)
        self.moments: dict[str, tuple[int, NDArray, NDArray]] = {}

    def watch(self) -> None:
        self.watching = True

    def make_noisy(self, level: float, scale: Scale | None, seed: int) -> None:
        """Add noise of ``level * scale``; level 0 leaves the observations untouched, unclipped too."""
        if level > 0:
            assert scale is not None
            _check_scale(scale, self.observation_space)
            told = {"desired_goal"} if _GOALS <= _by_key(self.observation_space).keys() else set()
            scaled = {key: level * np.asarray(value) for key, value in _by_key(scale).items() if key not in told}
            self.amplitude = scaled if isinstance(scale, dict) else scaled[""]
        self.rng = np.random.default_rng(seed)

    def reset(self) -> VecEnvObs:
        return self._sense(self.venv.reset())

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self.venv.step_wait()
        return self._sense(observations), rewards, dones, infos

    def standard_deviation(self) -> Scale:
        deviations = {key: np.sqrt(squares / count) for key, (count, _, squares) in self.moments.items()}
        return deviations if isinstance(self.observation_space, spaces.Dict) else deviations[""]

    def _sense(self, observations: VecEnvObs) -> VecEnvObs:
        if self.watching:
            for key, value in _by_key(observations).items():
                self._update_moments(key, np.asarray(value, dtype=np.float64))
        if self.amplitude is None:
            return observations
        spaces_, amplitudes = _by_key(self.observation_space), _by_key(self.amplitude)
        noisy = {
            key: self._perturb(value, spaces_[key], amplitudes[key]) if key in amplitudes else value
            for key, value in _by_key(observations).items()
        }
        return noisy if isinstance(observations, dict) else noisy[""]

    def _perturb(self, value: NDArray, space: spaces.Space, amplitude: NDArray) -> NDArray:
        if not isinstance(space, spaces.Box):  # a category has no neighbours
            return value
        noisy = value + self.rng.uniform(-1.0, 1.0, value.shape) * amplitude
        if np.issubdtype(value.dtype, np.integer):
            # Up or down by chance, so that noise of less than half a unit is not rounded away
            noisy = np.floor(noisy + self.rng.random(value.shape))
        return np.clip(noisy, space.low, space.high).astype(value.dtype)

    def _update_moments(self, key: str, batch: NDArray) -> None:
        count, mean, squares = self.moments.get(key, (0, np.zeros(batch.shape[1:]), np.zeros(batch.shape[1:])))
        total = count + len(batch)
        delta = batch.mean(axis=0) - mean
        squares = squares + len(batch) * batch.var(axis=0) + delta**2 * count * len(batch) / total
        self.moments[key] = (total, mean + delta * len(batch) / total, squares)


@contextmanager
def _sensors(env: VecEnv) -> Iterator[tuple[VecEnv, _Sensors]]:
    """Put sensors right above the environments for a while; the user's wrappers are as before afterwards."""
    if not isinstance(env, VecEnvWrapper):
        sensors = _Sensors(env)
        yield sensors, sensors
        return
    innermost: VecEnvWrapper = env
    while isinstance(innermost.venv, VecEnvWrapper):
        innermost = innermost.venv
    environments = innermost.venv
    innermost.venv = sensors = _Sensors(environments)
    try:
        yield env, sensors
    finally:
        innermost.venv = environments


def _as_vec_env(env: gym.Env | VecEnv) -> VecEnv:
    return env if isinstance(env, VecEnv) else DummyVecEnv([lambda: env])  # type: ignore[list-item, return-value]


def _by_key(value: Any) -> dict[str, Any]:
    """A dict as it is, a ``Dict`` space as a dict, anything else under the empty key."""
    if isinstance(value, spaces.Dict):
        return dict(value.spaces)
    return value if isinstance(value, dict) else {"": value}


def _check_scale(scale: Scale, observation_space: spaces.Space) -> None:
    expected = {key: space.shape for key, space in _by_key(observation_space).items()}
    got = {key: np.shape(value) for key, value in _by_key(scale).items()}
    if got != expected:
        raise ValueError(f"The noise scale has shape {got.get('', got)}, the observations {expected.get('', expected)}")
    if not all(np.isfinite(value).all() and (np.asarray(value) >= 0).all() for value in _by_key(scale).values()):
        raise ValueError("The noise scale must be finite and not negative")
