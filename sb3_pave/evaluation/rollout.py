"""Episodes of a policy, recorded while Stable-Baselines3's ``evaluate_policy`` runs them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.type_aliases import PolicyPredictor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_pave.evaluation.exploration import drawn_for_each_episode
from sb3_pave.evaluation.observations import Observations
from sb3_pave.evaluation.smoothness import smoothness_measures
from sb3_pave.evaluation.undisturbed import kept_actions, kept_torch_state, undisturbed

#: That NumPy takes
LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Episode:
    """
    One episode, as the policy lived it.

    :param observations: what the policy saw before each action (normalised if ``VecNormalize`` is in use), shape
        ``(n_steps, *observation_shape)``, or a dict of such arrays; empty if observations were not kept
    :param actions: what it answered, in the environment's scale, shape ``(n_steps, *action_shape)``
    :param rewards: what it got, not normalised by ``VecNormalize``, shape ``(n_steps,)``
    :param total_reward: return of the episode as ``evaluate_policy`` reports it: ``Monitor``'s where there is one
    :param length: length of the episode, likewise
    """

    observations: Observations
    actions: NDArray
    rewards: NDArray[np.float64]
    total_reward: float
    length: int

    @property
    def action_columns(self) -> NDArray:
        """:return: the actions, a column for each dimension, shape ``(n_steps, action_dim)``"""
        return self.actions.reshape(len(self.actions), -1)


@dataclass(frozen=True)
class Rollout:
    """
    Episodes of one policy.

    :param episodes: the episodes, in the order in which they ended
    :param action_space: the action space of the environment
    :param deterministic: whether the policy acted deterministically
    :param seed: the seed of the environments, None if they were not seeded
    """

    episodes: list[Episode]
    action_space: spaces.Space
    deterministic: bool
    seed: int | None

    def smoothness(self, control_rate: float = 1.0, cutoff: float | None = None) -> dict[str, NDArray[np.float64]]:
        """
        Return, length and every smoothness measure of each episode.

        :param control_rate: actions a second in Hz; 1 counts frequency in cycles a step
        :param cutoff: frequency above which energy counts as high; by default ``control_rate / 4``
        :return: ``return``, ``length`` and the keys of :func:`sb3_pave.evaluation.smoothness.smoothness_measures`,
            each of shape ``(n_episodes,)``
        """
        rows = [episode_measures(episode, self.action_space, control_rate, cutoff) for episode in self.episodes]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def record_rollout(
    model: PolicyPredictor,
    env: gym.Env | VecEnv,
    n_eval_episodes: int = 10,
    deterministic: bool = True,
    seed: int | None = None,
    callback: Callable[[dict[str, Any], dict[str, Any]], None] | None = None,
    warn: bool = True,
    keep_observations: bool = True,
) -> Rollout:
    """
    Run the policy for ``n_eval_episodes`` episodes and record them.

    It *is* SB3's ``evaluate_policy``, with a recorder as its callback: vector environments, ``VecNormalize``, ``Monitor``
    and recurrent policies are treated as there. With the same seed the episodes are the same, stochastic actions
    included; the noise of gSDE is drawn for each episode.

    The agent stays as it was, ``model.get_env()`` in place of an environment of its own included: normalisation that still
    trains is frozen meanwhile and does not touch the rewards, and with a seed the global random state of torch and that of
    the environments are put back. An agent whose own environment is run resets it when it learns on; in the middle of
    ``learn()``, from a callback, give another one.

    :param model: anything with a ``predict`` method: an algorithm or a policy
    :param env: the environment or vector environment
    :param n_eval_episodes: number of episodes
    :param deterministic: whether to use deterministic actions
    :param seed: seed of the environments, and of the actions if they are stochastic; None leaves both as they are
    :param callback: passed on to ``evaluate_policy``: called after each step of each environment
    :param warn: whether to warn that the environment has no ``Monitor``
    :param keep_observations: whether to keep the observations: images fill the memory
    :return: the recorded episodes
    :raises ValueError: if the action space is not a ``Box`` or ``n_eval_episodes`` is not positive
    """
    if n_eval_episodes < 1:
        raise ValueError(f"n_eval_episodes must be at least 1; got {n_eval_episodes}")
    if not isinstance(env, VecEnv):
        env = DummyVecEnv([lambda env=env: env])  # type: ignore[misc, list-item, return-value]
    _check_continuous(env.action_space)
    recorder = EpisodeRecorder(keep_observations)

    with ExitStack() as stack:
        stack.enter_context(undisturbed(model, env, seeded=seed is not None))
        stack.enter_context(kept_actions(env))
        if seed is not None:
            env.seed(seed)
            if not deterministic:
                stack.enter_context(kept_torch_state())
                th.manual_seed(seed)
        draw = None if deterministic else stack.enter_context(drawn_for_each_episode(model, env.num_envs))

        def record(locals_: dict[str, Any], globals_: dict[str, Any]) -> None:
            n_before = len(recorder.episodes)
            recorder(locals_, globals_)
            if draw is not None and len(recorder.episodes) > n_before:
                draw(locals_["i"])
            if callback is not None:
                callback(locals_, globals_)

        evaluate_policy(
            model,
            env,
            n_eval_episodes=n_eval_episodes,
            deterministic=deterministic,
            callback=record,
            warn=warn,
        )
    return Rollout(recorder.episodes, env.action_space, deterministic, seed)


@dataclass
class EpisodeRecorder:
    """
    Callback of ``evaluate_policy`` that keeps what happened, with next to no work in a step.

    :param keep_observations: whether to keep the observations
    """

    keep_observations: bool = True
    episodes: list[Episode] = field(default_factory=list)
    _open: dict[int, list[tuple[Any, Any, float]]] = field(default_factory=dict)

    def __call__(self, locals_: dict[str, Any], globals_: dict[str, Any]) -> None:
        """
        Record a step of the environment ``i``.

        :param locals_: local variables of ``evaluate_policy``
        :param globals_: its global variables, unused
        """
        i = locals_["i"]
        # Copies: predictors and environments may use their arrays again
        observation = _of_environment(locals_["observations"], i) if self.keep_observations else None
        self._open.setdefault(i, []).append((observation, np.array(locals_["actions"][i]), locals_["reward"]))
        # As evaluate_policy has it: with a Monitor, only its word ends an episode (a lost Atari life does not)
        if locals_["done"] and (not locals_["is_monitor_wrapped"] or "episode" in locals_["info"]):
            if locals_["is_monitor_wrapped"]:
                total_reward, length = locals_["info"]["episode"]["r"], locals_["info"]["episode"]["l"]
            else:
                total_reward, length = locals_["current_rewards"][i], locals_["current_lengths"][i]
            observations, actions, rewards = zip(*self._open.pop(i), strict=True)
            self.episodes.append(
                Episode(
                    observations=_stack(observations) if self.keep_observations else np.empty((0,)),
                    actions=np.array(actions),
                    rewards=np.array(rewards, dtype=np.float64),
                    total_reward=float(total_reward),
                    length=int(length),
                )
            )


def episode_measures(
    episode: Episode, action_space: spaces.Space, control_rate: float = 1.0, cutoff: float | None = None
) -> dict[str, float]:
    """
    Return, length and every smoothness measure of one episode.

    :param episode: the episode
    :param action_space: the action space of the environment
    :param control_rate: actions a second in Hz; 1 counts frequency in cycles a step
    :param cutoff: frequency above which energy counts as high; by default ``control_rate / 4``
    :return: ``return``, ``length`` and the keys of :func:`sb3_pave.evaluation.smoothness.smoothness_measures`
    :raises ValueError: if the action space is not a ``Box``
    """
    box = _check_continuous(action_space)
    return {
        "return": episode.total_reward,
        "length": episode.length,
        **smoothness_measures(episode.action_columns, box.low.ravel(), box.high.ravel(), control_rate, cutoff),
    }


def stack_observations(episodes: list[Episode]) -> Observations:
    """
    The observations of several episodes, one after the other.

    :param episodes: episodes with their observations
    :return: shape ``(total number of steps, *observation_shape)``, or a dict of such arrays
    """
    first = episodes[0].observations
    if isinstance(first, dict):
        return {key: np.concatenate([episode.observations[key] for episode in episodes]) for key in first}
    return np.concatenate([episode.observations for episode in episodes])


def stack_actions(episodes: list[Episode]) -> NDArray:
    """
    The actions of several episodes, one after the other.

    :param episodes: the episodes
    :return: shape ``(total number of steps, action_dim)``
    """
    return np.concatenate([episode.action_columns for episode in episodes])


def _check_continuous(action_space: spaces.Space) -> spaces.Box:
    if not isinstance(action_space, spaces.Box):
        raise ValueError(f"Smoothness is defined for continuous actions (a Box space); this environment has {action_space}")
    return action_space


def _of_environment(observations: Observations, i: int) -> Any:
    if isinstance(observations, dict):
        return {key: np.array(value[i]) for key, value in observations.items()}
    return np.array(observations[i])


def _stack(observations: tuple[Any, ...]) -> Observations:
    if isinstance(observations[0], dict):
        return {key: np.array([observation[key] for observation in observations]) for key in observations[0]}
    return np.array(observations)
