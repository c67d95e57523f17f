"""Takes: episodes of an agent, as :mod:`sb3_pave.evaluation.rollout` records them, with images of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.type_aliases import PolicyPredictor
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_pave.evaluation.rollout import Episode, record_rollout


class FilmError(Exception):
    """There is nothing to film; the message says why."""


@dataclass(frozen=True)
class Shot:
    """
    Which steps of an episode are filmed.

    :param start: the first of them
    :param stride: every how many steps an image is taken
    :param height: height of the images in pixels
    :param steps: how many steps are filmed, with or without an image; None films to the end of the episode
    """

    start: int = 0
    stride: int = 1
    height: int = 240
    steps: int | None = None

    @property
    def end(self) -> float:
        """The step before which it ends, infinity if the episode alone says so."""
        return inf if self.steps is None else self.start + self.steps


@dataclass(frozen=True)
class Take:
    """
    An episode with its images.

    :param episode: the episode up to the end of the shot, with its actions and rewards, without its observations
    :param images: what was to be seen when the agent chose its action, each of shape ``(height, width, 3)``, RGB
    :param steps: the step of each image, counted from 0
    :param returns: the return up to and with each step: the ``Monitor``'s, where there is one
    :param low: lower action bounds, shape ``(action_dim,)``
    :param high: upper action bounds, shape ``(action_dim,)``
    """

    episode: Episode
    images: list[NDArray[np.uint8]]
    steps: list[int]
    returns: list[float]
    low: NDArray
    high: NDArray

    @property
    def actions(self) -> NDArray:
        """In the environment's scale, shape ``(n_steps, action_dim)``."""
        return self.episode.action_columns


def playback(control_rate: float, most_fps: float) -> tuple[int, float]:
    """
    How to show a robot at the speed at which it moves.

    :param control_rate: steps of the environment in a second of the film, in Hz
    :param most_fps: the most images a second
    :return: every how many steps an image is taken, and the images a second
    """
    stride = max(1, ceil(control_rate / most_fps - 1e-9))
    return stride, control_rate / stride


def record_take(
    model: PolicyPredictor,
    env: VecEnv,
    shot: Shot,
    deterministic: bool = True,
    seed: int = 0,
    callback: Callable[[dict[str, Any], dict[str, Any]], None] | None = None,
) -> Take:
    """
    Film one episode. The environment is not told where the shot ends: its limit of steps, which agents may see, stays.

    :param model: the agent
    :param env: one environment whose ``render_mode`` is ``"rgb_array"``
    :param shot: which steps are filmed
    :param deterministic: whether to use deterministic actions
    :param seed: seed of the episode: takes of one seed have one start
    :param callback: passed on to ``evaluate_policy``: called after each step
    :return: the take
    :raises FilmError: if the environment can't be drawn, or the episode ends before the shot starts
    :raises ValueError: if the action space is not a ``Box``
    """
    camera = _Camera(env, shot)
    rollout = record_rollout(model, camera, 1, deterministic, seed, callback, warn=False, keep_observations=False)
    (episode,) = rollout.episodes
    if not camera.images:
        raise FilmError(f"the episode of seed {seed} ends after {len(episode.actions)} steps, before the film starts")
    space: Any = rollout.action_space
    return Take(episode, camera.images, camera.steps, camera.returns, space.low.ravel(), space.high.ravel())


class _Camera(VecEnvWrapper):
    """
    Takes an image before each step that the shot asks for: of the state in which the action was chosen. After the last one,
    it ends the episode.
    """

    def __init__(self, venv: VecEnv, shot: Shot):
        super().__init__(venv)
        self.shot = shot
        self.monitored = all(venv.env_is_wrapped(Monitor))
        self.step_number = 0
        self.returns: list[float] = []
        self.images: list[NDArray[np.uint8]] = []
        self.steps: list[int] = []

    def reset(self) -> VecEnvObs:
        self.step_number = 0
        self.images, self.steps, self.returns = [], [], []
        return self.venv.reset()

    def step_async(self, actions: NDArray) -> None:
        since = self.step_number - self.shot.start
        if since >= 0 and since % self.shot.stride == 0:
            self.images.append(_resized(self._image(), self.shot.height))
            self.steps.append(self.step_number)
        self.step_number += 1
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self.venv.step_wait()
        self.returns.append(self._return(rewards[0], infos[0]))
        if self.step_number >= self.shot.end:
            dones = np.ones_like(dones)
            # Where there is a Monitor, evaluate_policy ends an episode by its word alone
            infos[0].setdefault("episode", {"r": self.returns[-1], "l": self.step_number})
        return observations, rewards, dones, infos

    def _return(self, reward: float, info: dict[str, Any]) -> float:
        if not self.monitored:
            return (self.returns[-1] if self.returns else 0.0) + float(reward)
        # Rewards of wrappers above it may be others; when the episode is over, its next one has begun
        return info["episode"]["r"] if "episode" in info else float(sum(self.venv.get_attr("rewards")[0]))

    def _image(self) -> NDArray[np.uint8]:
        try:
            image = self.venv.get_images()[0]
        except Exception as error:  # whatever a renderer raises
            raise FilmError(f"the environment could not be drawn: {error}") from error
        if not (isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8):
            raise FilmError('the environment draws no images: it needs render_mode="rgb_array"')
        return image


def _resized(image: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    from PIL import Image

    width = max(1, round(image.shape[1] * height / image.shape[0]))
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
