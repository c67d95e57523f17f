"""Evaluation during training that also says how smooth the policy is."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_pave.evaluation.control_rate import control_rate as rate_of
from sb3_pave.evaluation.nested_callbacks import flattened
from sb3_pave.evaluation.networks import CriticChoice, check_choice, critic_of
from sb3_pave.evaluation.rollout import EpisodeRecorder, Rollout
from sb3_pave.evaluation.rollout_geometry import rollout_geometry
from sb3_pave.evaluation.smoothest import Candidate, SmoothestModels
from sb3_pave.evaluation.smoothness import smoothness_measures
from sb3_pave.evaluation.statistics_file import statistics_name
from sb3_pave.evaluation.undisturbed import frozen_normalization, kept_actions, kept_torch_state, share_environments
from sb3_pave.user_warning import warn_user

# What EvalCallback takes that can be taken over from another one
_SETTINGS = ("eval_freq", "n_eval_episodes", "deterministic", "render", "warn")
_BELONGINGS = ("log_path", "best_model_save_path", "callback_on_new_best", "callback")


class SmoothnessEvalCallback(EvalCallback):
    """
    SB3's ``EvalCallback``, on the same episodes also measuring smoothness and, at an interval, the critic's geometry.

    - Logs ``eval/sm``, ``eval/action_change``, ``eval/saturation`` and the other measures of
      :func:`sb3_pave.evaluation.smoothness.smoothness_measures`, means over the episodes; ``geometry/M_mean``,
      ``geometry/negative_definite_rate`` and the others of
      :meth:`sb3_pave.evaluation.rollout_geometry.RolloutGeometry.summary`.
    - Writes them into ``evaluations.npz`` beside SB3's keys: ``sm`` etc. of shape ``(n_evaluations, n_eval_episodes)``;
      ``geometry_M_mean`` etc. of shape ``(n_geometries,)`` with their own ``geometry_timesteps``.
    - Keeps, besides ``best_model.zip``, the smoothest of all models evaluated whose return is close enough to the best as
      ``smoothest_model.zip``; each with its ``best_model_vecnormalize.pkl`` or ``smoothest_model_vecnormalize.pkl`` if
      ``VecNormalize`` is in use. Those that may take its place when there is a new best are in memory meanwhile.

    The measures of a policy that answers NaN are NaN, with one warning, and it has no geometry.

    Training goes on as if nothing had been measured: a ``VecNormalize`` of ``eval_env`` that still trains is frozen during the
    episodes and does not touch the rewards, and stochastic actions draw nothing from training's random numbers.

    Without ``eval_env`` it takes over the ``EvalCallback`` that it finds beside it, with its environment, settings and
    files, and silences it: that is how it is used from a zoo YAML, ``callback: sb3_pave.callbacks.SmoothnessEvalCallback``.

    :param eval_env: the environment used for evaluation; None to take over the ``EvalCallback`` beside this one
    :param control_rate: actions a second in Hz; 1 counts frequency in cycles a step; None asks ``eval_env`` for its ``dt`` (in
        cycles a step if it has none)
    :param cutoff: frequency above which energy counts as high; by default ``control_rate / 4``
    :param geometry_interval: measure the geometry at every so many evaluations, beginning with the first; 0 for never
    :param critic: the critic whose geometry is measured: its index in the ensemble or ``"min"``
    :param smoothest_by: the measure that the smoothest model has the lowest of
    :param smoothest_share: how close to the best mean return the smoothest model's has to be: with 0.9, it may fall short
        by a tenth of the best's absolute value
    :param kwargs: all other arguments of ``EvalCallback``
    :raises ValueError: if an argument is out of its range, the actions are not continuous, there is neither an
        ``eval_env`` nor an ``EvalCallback`` to take over, ``eval_env`` is the environment that the agent trains in, or the
        agent has no such critic
    """

    def __init__(
        self,
        eval_env: gym.Env | VecEnv | None = None,
        *,
        control_rate: float | None = None,
        cutoff: float | None = None,
        geometry_interval: int = 0,
        critic: CriticChoice = 0,
        smoothest_by: str = "sm",
        smoothest_share: float = 0.9,
        **kwargs: Any,
    ):
        super().__init__(_NoEnvironment() if eval_env is None else eval_env, **kwargs)
        if not 0.0 < smoothest_share <= 1.0:
            raise ValueError(f"smoothest_share must be in (0, 1]; got {smoothest_share}")
        if geometry_interval < 0:
            raise ValueError(f"geometry_interval must not be negative; got {geometry_interval}")
        self.control_rate, self.cutoff = control_rate, cutoff
        if eval_env is not None:
            self._settle_rate()
        measures = _measure_names(1.0, None) if self.control_rate is None else _measure_names(self.control_rate, cutoff)
        if smoothest_by not in measures:
            raise ValueError(f"smoothest_by must be one of {', '.join(measures)}; got {smoothest_by!r}")
        self.geometry_interval = geometry_interval
        self.critic: CriticChoice = critic
        self.smoothest_by = smoothest_by
        self.smoothest_share = smoothest_share
        self._smoothest = SmoothestModels(smoothest_share)
        self._kept: Candidate | None = None
        #: Measure and mean return of the model kept as the smoothest
        self.smoothest_score, self.smoothest_mean_reward = np.inf, -np.inf
        self.evaluations_smoothness: dict[str, list[NDArray]] = {}
        self.evaluations_geometry: dict[str, list[float]] = {}
        self._given = set(kwargs)
        self._to_take_over = eval_env is None
        self._n_evaluations = 0
        self._has_diverged = False
        self._recorder = EpisodeRecorder()
        self._borrowed = ExitStack()

    def _init_callback(self) -> None:
        if not self._to_take_over:
            super()._init_callback()
            self._check_environment()
        elif self.callback_on_new_best is not None:  # one of our own; what is taken over has its model
            self.callback_on_new_best.init_callback(self.model)
        if self.geometry_interval > 0:
            self._check_critic()

    def _on_training_start(self) -> None:
        if self._to_take_over:
            self._take_over()
            self._to_take_over = False
        super()._on_training_start()

    def _on_step(self) -> bool:
        if self.eval_freq <= 0 or self.n_calls % self.eval_freq != 0:
            return super()._on_step()
        self._recorder = EpisodeRecorder(keep_observations=self._geometry_is_due())
        with self._borrowed:
            self._borrowed.enter_context(frozen_normalization(self.eval_env))
            self._borrowed.enter_context(kept_actions(self.eval_env))
            self._borrowed.enter_context(kept_torch_state())
            best_before = self.best_mean_reward
            continue_training = super()._on_step()
        if self.log_path is not None:
            self._save_evaluations(self.log_path)
        if self.best_mean_reward > best_before and self.best_model_save_path is not None:
            self._write({statistics_name("best_model"): self._normalization()})
        self._keep_smoothest()
        self._n_evaluations += 1
        return continue_training

    def _log_success_callback(self, locals_: dict[str, Any], globals_: dict[str, Any]) -> None:
        """SB3 calls this at each step of the evaluation, and dumps the log when the last episode is over."""
        super()._log_success_callback(locals_, globals_)
        self._recorder(locals_, globals_)
        if len(self._recorder.episodes) == self.n_eval_episodes and locals_["done"]:
            # Before any other callback sees the environment (a new best model's saves its normalisation)
            self._borrowed.close()
            self._measure()

    def _measure(self) -> None:
        rollout = Rollout(self._recorder.episodes, self.eval_env.action_space, self.deterministic, seed=None)
        rate: Any = self.control_rate  # settled by now
        measures = self._smoothness(rollout, rate)
        for name in _measure_names(rate, self.cutoff):
            self.evaluations_smoothness.setdefault(name, []).append(measures[name])
            self.logger.record(f"eval/{name}", float(measures[name].mean()))
        if self._geometry_is_due() and not np.isnan(measures["sm"]).any():
            measured = rollout_geometry(self.model, rollout, self.critic)
            # That an agent has no Q(s, a) by its nature is no news
            expected = not hasattr(self.model, "critic") and measured.actor_jacobian_norm is not None
            if measured.notes and not expected and not self.evaluations_geometry:
                warn_user("; ".join(measured.notes))
            geometry = measured.summary()
            for name, value in {"timesteps": self.num_timesteps, **geometry}.items():
                self.evaluations_geometry.setdefault(f"geometry_{name}", []).append(value)
            for name, value in geometry.items():
                self.logger.record(f"geometry/{name}", value)

    def _smoothness(self, rollout: Rollout, rate: float) -> dict[str, NDArray]:
        try:
            return rollout.smoothness(rate, self.cutoff)
        except ValueError as error:  # a policy that has diverged; whether training ends is not for us to say
            if not self._has_diverged:
                warn_user(str(error))
            self._has_diverged = True
            return dict.fromkeys(_measure_names(rate, self.cutoff), np.full(len(rollout.episodes), np.nan))

    def _geometry_is_due(self) -> bool:
        return self.geometry_interval > 0 and self._n_evaluations % self.geometry_interval == 0

    def _save_evaluations(self, path: str) -> None:
        """SB3's file again, with our keys beside its own."""
        successes = {"successes": self.evaluations_successes} if self._is_success_buffer else {}
        np.savez(
            path,
            timesteps=self.evaluations_timesteps,
            results=self.evaluations_results,
            ep_lengths=self.evaluations_length,
            **successes,  # type: ignore[arg-type]
            **self.evaluations_smoothness,  # type: ignore[arg-type]
            **self.evaluations_geometry,  # type: ignore[arg-type]
        )

    def _keep_smoothest(self) -> None:
        score = float(self.evaluations_smoothness[self.smoothest_by][-1].mean())
        found = self._smoothest.offer(float(self.last_mean_reward), score, self.best_mean_reward, self._saved)
        if found is None or found is self._kept:
            return
        self._kept = found
        self.smoothest_score, self.smoothest_mean_reward = found.score, found.mean_reward
        if self.verbose >= 1:
            print(f"New smoothest model: {self.smoothest_by}={found.score:.3g}, mean reward {found.mean_reward:.2f}")
        self._write(found.files)

    def _saved(self) -> dict[str, bytes | None]:
        """The agent as it is now, as the files of the smoothest model."""
        if self.best_model_save_path is None:
            return {}
        model = io.BytesIO()
        self.model.save(model)
        return {"smoothest_model.zip": model.getvalue(), statistics_name("smoothest_model"): self._normalization()}

    def _normalization(self) -> bytes | None:
        """What ``VecNormalize.save`` writes."""
        normalization = self.model.get_vec_normalize_env()
        return None if normalization is None else pickle.dumps(normalization)

    def _write(self, files: Mapping[str, bytes | None]) -> None:
        for name, content in files.items():
            path = Path(self.best_model_save_path or "", name)
            if content is None:
                path.unlink(missing_ok=True)  # of another training, whose model is replaced
            else:
                path.write_bytes(content)

    def _take_over(self) -> None:
        others = (one for one in flattened(self.locals.get("callback")) if not isinstance(one, SmoothnessEvalCallback))
        found = next((one for one in others if isinstance(one, EvalCallback)), None)
        if found is None:
            raise ValueError(
                "SmoothnessEvalCallback was given no eval_env and found no EvalCallback beside it to take over. "
                "In the zoo, --eval-freq has to be positive; from Python, pass eval_env."
            )
        self.eval_env = found.eval_env
        # A subclass has a purpose of its own (the zoo's reports to Optuna): it goes on, and keeps its files to itself
        replaced = type(found) is EvalCallback
        for name in _SETTINGS + (_BELONGINGS if replaced else ()):
            given = "callback_after_eval" if name == "callback" else name
            if given not in self._given:
                setattr(self, name, getattr(found, name))
        for child in (self.callback_on_new_best, self.callback):
            if child is not None:
                child.parent = self
        self._check_environment()
        self._settle_rate()
        for folder in filter(None, (self.best_model_save_path, self.log_path and os.path.dirname(self.log_path))):
            os.makedirs(folder, exist_ok=True)
        if replaced:
            found.eval_freq = -1
            if self.verbose >= 1:
                print("SmoothnessEvalCallback takes the place of the EvalCallback beside it")

    def _settle_rate(self) -> None:
        if self.control_rate is None:
            self.control_rate, note = rate_of(self.eval_env)
            if note is not None:
                warn_user(note.replace("--control-rate", "control_rate"))
        _measure_names(self.control_rate, self.cutoff)

    def _check_critic(self) -> None:
        try:
            network = critic_of(self.model)
        except ValueError:
            return  # becomes a note where it is measured
        check_choice(self.critic, network)

    def _check_environment(self) -> None:
        if not isinstance(self.eval_env.action_space, spaces.Box):
            raise ValueError(f"Smoothness is defined for continuous actions; the environment has {self.eval_env.action_space}")
        if share_environments(self.training_env, self.eval_env):
            raise ValueError(
                "eval_env is the environment that the agent trains in: each evaluation would cut off an episode there and "
                "hand the agent an observation of another one. Make a second one, by make_vec_env for example."
            )


class _NoEnvironment(gym.Env):
    """In the place of an environment that is not known yet."""

    observation_space = action_space = spaces.Box(-1.0, 1.0, (1,))


def _measure_names(control_rate: float, cutoff: float | None) -> list[str]:
    """Names of the smoothness measures; checks the rate and the cutoff."""
    return list(smoothness_measures([0.0], -1.0, 1.0, control_rate, cutoff))
