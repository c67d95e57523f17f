"""Films of agents side by side: record a take of each, draw the picture, write the file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from sb3_pave.evaluation.agents import Agent, check_spaces
from sb3_pave.evaluation.control_rate import control_rate
from sb3_pave.evaluation.film_file import save_film
from sb3_pave.evaluation.film_picture import Script, check_dims, film_frames, n_frames
from sb3_pave.evaluation.offscreen import check_renderer, follow_robot, prepare_rendering
from sb3_pave.evaluation.style import shown_dims
from sb3_pave.evaluation.takes import FilmError, Shot, Take, playback, record_take

#: Of more action dimensions, the first ones are drawn
MAX_TRACED = 3
# Of an environment that says neither how long its step is nor how fast to show it
_FPS = 30.0


@dataclass(frozen=True)
class FilmSettings:
    """
    What is filmed, and how.

    :param env_id: the environment
    :param labels: what each agent is called
    :param action_dims: action dimensions whose traces are drawn; None for the first :data:`MAX_TRACED`
    :param seed: seed of the first episode; the next ones count on from it
    :param n_episodes: number of episodes, one after the other
    :param start: first step of each episode that is shown
    :param steps: how many steps of each are shown; None shows it to its end
    :param deterministic: whether to use deterministic actions
    :param fps: the most images a second
    :param speed: how fast it is shown, 1 as the robot moves
    :param height: height in pixels, even
    :param device: PyTorch device
    """

    env_id: str
    labels: Sequence[str]
    action_dims: Sequence[int] | None = None
    seed: int = 0
    n_episodes: int = 1
    start: int = 0
    steps: int | None = None
    deterministic: bool = True
    fps: float = 25.0
    speed: float = 1.0
    height: int = 480
    device: str = "auto"

    def __post_init__(self) -> None:
        least = {"n_episodes": 1, "start": 0, "steps": 1}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise ValueError(f"{name} must be at least {smallest}; got {value}")
        for name in ("fps", "speed"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}")

    @property
    def title(self) -> str:
        """Title of the film."""
        actions = "deterministic" if self.deterministic else "stochastic"
        seeds = f"seed {self.seed}" if self.n_episodes == 1 else f"seeds {self.seed} to {self.seed + self.n_episodes - 1}"
        return f"{self.env_id}, {actions} actions, {seeds}" + ("" if self.speed == 1 else f", speed {self.speed:g}")


class FilmProgress(Protocol):
    """Is told how far a film is."""

    def begin(self, what: str, total: int | None) -> None:
        """:param what: the work that begins :param total: how many steps or images it has, None if nobody knows"""

    def advance(self) -> None:
        """One of them is done."""


def make_film(agents: Sequence[Agent], settings: FilmSettings, path: str | os.PathLike, progress: FilmProgress) -> None:
    """
    Film agents side by side, from the same starts.

    :param agents: the agents
    :param settings: what is filmed, and how
    :param path: the file, replaced if it exists; its ending says the format
    :param progress: is told how far it is
    :raises AgentError: if an agent or its environment does not load
    :raises FilmError: if the environment can't be drawn or there is nothing to film
    :raises ValueError: if a setting makes no sense
    """
    takes: list[list[Take]] = []
    plan: _Plan | None = None
    prepare_rendering()
    for agent, label in zip(agents, settings.labels, strict=True):
        env = agent.make_env(settings.env_id, settings.seed, {"render_mode": "rgb_array"})
        try:
            check_renderer(env)
            follow_robot(env)
            plan = plan or _plan(env, settings)
            takes.append(_record(agent, env, label, settings, plan.shot, progress))
        finally:
            env.close()
    if plan is None:
        raise FilmError("there is no agent to film")
    episodes = list(zip(*takes, strict=True))
    progress.begin("drawing", sum(n_frames(episode, plan.fps) for episode in episodes))
    save_film(_frames(episodes, plan, progress), path, plan.fps)


@dataclass(frozen=True)
class _Plan:
    shot: Shot
    script: Script
    fps: float


def _plan(env: VecEnv, settings: FilmSettings) -> _Plan:
    """What the environment has a say in: how fast it is shown, and how many actions there are."""
    n_actions = int(np.prod(env.action_space.shape or (1,)))
    dims = range(min(MAX_TRACED, n_actions)) if settings.action_dims is None else settings.action_dims
    check_dims(dims, n_actions)
    rate, _ = control_rate(env)
    natural = rate if rate != 1 else float(env.get_attr("metadata")[0].get("render_fps") or _FPS)
    stride, fps = playback(natural * settings.speed, settings.fps)
    shown = f", {shown_dims(len(dims), n_actions)}" if settings.action_dims is None and len(dims) < n_actions else ""
    script = Script(settings.title + shown, settings.labels, dims, rate, settings.height)
    return _Plan(Shot(settings.start, stride, script.image_height, settings.steps), script, fps)


def _record(agent: Agent, env: VecEnv, label: str, settings: FilmSettings, shot: Shot, progress: FilmProgress) -> list[Take]:
    spec = env.get_attr("spec")[0]
    longest = min(shot.end, inf if spec is None or spec.max_episode_steps is None else spec.max_episode_steps)
    model = agent.load(settings.device)
    check_spaces(agent, model, env)
    progress.begin(f"filming {label}", None if longest == inf else int(longest) * settings.n_episodes)
    seeds = range(settings.seed, settings.seed + settings.n_episodes)

    def advance(locals_: dict[str, Any], globals_: dict[str, Any]) -> None:
        progress.advance()

    return [record_take(model, env, shot, settings.deterministic, seed, advance) for seed in seeds]


def _frames(episodes: Sequence[Sequence[Take]], plan: _Plan, progress: FilmProgress) -> Iterator[NDArray[np.uint8]]:
    for takes in episodes:
        for frame in film_frames(takes, plan.script, plan.fps):
            progress.advance()
            yield frame
    progress.begin("writing", None)
