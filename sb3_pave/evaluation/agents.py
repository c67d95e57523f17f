"""Trained agents on disk, with the environment that they were trained in, as RL Zoo's ``enjoy`` makes it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecNormalize, VecTransposeImage

from sb3_pave.evaluation.errors import AgentError
from sb3_pave.evaluation.run_folder import model_file, read_settings, settings_of, shares_its_training
from sb3_pave.evaluation.statistics_file import read_statistics, statistics_name
from sb3_pave.evaluation.user_modules import HINT_OF_PACKAGES
from sb3_pave.evaluation.zip_files import algorithm_name, load_model

_TRAINED_IN = "is it the environment that it was trained in, with the same wrappers?"


@dataclass(frozen=True)
class Agent:
    """
    A trained model on disk.

    :param algorithm: name of its algorithm in the zoo, ``sac`` or ``pave_sac`` for example
    :param run: name of the run, that of its folder or of the zip file; unique among the runs of a label
    :param model_path: the zip file
    :param stats_path: the zoo's folder with its hyperparameters and ``VecNormalize`` statistics, if there is one
    :param vec_normalize_path: ``VecNormalize`` statistics given by hand or saved with this model, in place of the zoo's
    :param label: what it is shown and pooled under with others of the same label; its algorithm by default
    """

    algorithm: str
    run: str
    model_path: Path
    stats_path: Path | None = None
    vec_normalize_path: Path | None = None
    label: str = ""

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", self.algorithm)

    @property
    def name(self) -> str:
        """:return: what messages call it"""
        return f"{self.label} {self.run}"

    def load(self, device: str = "auto") -> BaseAlgorithm:
        """
        :param device: PyTorch device
        :return: the model, see :func:`load_model`
        :raises AgentError: if it does not load
        """
        from rl_zoo3.utils import ALGOS

        return load_model(self.model_path, ALGOS.get(self.algorithm), device)

    def make_env(self, env_id: str, seed: int = 0, env_kwargs: dict[str, Any] | None = None) -> VecEnv:
        """
        Its environment, with the wrappers and the ``VecNormalize`` statistics that it was trained with.

        :param env_id: the environment
        :param seed: seed
        :param env_kwargs: arguments of the environment, over those that it was trained with
        :return: one environment; statistics are not updated and rewards are not normalised
        :raises AgentError: if the saved settings can't be read, or the statistics are missing or don't fit
        """
        from rl_zoo3.utils import create_test_env, get_saved_hyperparams

        arguments, _ = read_settings(self.stats_path)
        stats_path = None
        hyperparams: dict[str, Any] = {}
        if self.stats_path is not None:
            hyperparams, stats_path = get_saved_hyperparams(str(self.stats_path), norm_reward=False, test_mode=True)
        layers = (hyperparams.pop("env_kwargs", None), arguments.get("env_kwargs"), env_kwargs)
        kwargs = {name: value for layer in layers for name, value in (layer or {}).items()}
        n_stack, statistics = 0, None
        if self.vec_normalize_path is not None:
            statistics = read_statistics(self.vec_normalize_path)
            hyperparams["normalize"] = False
            n_stack = hyperparams.pop("frame_stack", 0)  # the zoo stacks what it has normalised
        elif hyperparams.get("normalize") and (zoos := Path(stats_path or "", "vecnormalize.pkl")).is_file():
            read_statistics(zoos)  # the zoo would not say which file can't be read
        try:
            env = create_test_env(
                env_id,
                stats_path=stats_path,
                seed=seed,
                should_render=False,
                hyperparams=hyperparams,
                env_kwargs=kwargs,
                vec_env_cls=DummyVecEnv,
            )
            return env if statistics is None else _normalised(env, statistics, n_stack)
        except Exception as error:
            unknown = isinstance(error, gym.error.UnregisteredEnv)
            hint = HINT_OF_PACKAGES if unknown else ""
            raise AgentError(f"The environment {env_id} of {self.model_path} could not be made: {error}{hint}") from error

    def training_curves(self) -> dict[str, list[float]]:
        """
        What was measured while it was trained, from the ``evaluations.npz`` beside it.

        :return: ``timesteps``, ``return`` and, if :class:`sb3_pave.callbacks.SmoothnessEvalCallback` wrote them, ``sm`` and
            the other smoothness measures, means over the episodes of each evaluation; ``geometry_timesteps``,
            ``geometry_M_mean`` and the others. Empty if there is no such file.
        :raises AgentError: if the file can't be read, or may be of another model beside it
        """
        path = self.model_path.parent / "evaluations.npz"
        if not path.is_file():
            return {}
        if not shares_its_training(self.model_path):
            raise AgentError(
                f"{path} may be of another model there than {self.model_path.name}; a folder for each, with its own "
                "evaluations.npz, tells them apart"
            )
        try:
            with path.open("rb") as file, np.load(file) as saved:
                arrays = {"return" if key == "results" else key: saved[key] for key in saved if key != "successes"}
        except (OSError, EOFError, ValueError, BadZipFile) as error:
            raise AgentError(f"{path} could not be read: {error}") from error
        return {key: (value.mean(axis=1) if value.ndim == 2 else value).tolist() for key, value in arrays.items()}


def _normalised(env: VecEnv, statistics: VecNormalize, n_stack: int) -> VecEnv:
    """As the zoo wraps it: normalised, then stacked; statistics are not updated and rewards are not normalised."""
    statistics.set_venv(env)
    statistics.training = statistics.norm_reward = False
    return VecFrameStack(statistics, n_stack) if n_stack > 0 else statistics


def from_zip(
    path: str | os.PathLike, env_id: str, algorithm: str | None = None, vec_normalize_path: str | os.PathLike | None = None
) -> Agent:
    """
    A model given as a zip file. If it lies in a folder of the zoo, the settings there are used, in another environment, too.

    :param path: the zip file, with or without ``.zip``, or the folder of a run
    :param env_id: the environment
    :param algorithm: name of its algorithm in the zoo; None reads it from the file
    :param vec_normalize_path: saved ``VecNormalize`` statistics; None takes those saved with this very model, if there are any
    :return: the agent
    :raises AgentError: if a file is missing or is not a model
    """
    from huggingface_sb3 import EnvironmentName

    path = model_file(Path(path))
    if vec_normalize_path is not None and not Path(vec_normalize_path).is_file():
        raise AgentError(f"{vec_normalize_path} does not exist")
    settings = settings_of(path)
    fitting = [one for one in settings if one.name == EnvironmentName(env_id)] or settings
    return Agent(
        algorithm=algorithm or algorithm_name(path),
        run=path.stem,
        model_path=path,
        stats_path=fitting[0] if len(fitting) == 1 else None,
        vec_normalize_path=own_statistics(path) if vec_normalize_path is None else Path(vec_normalize_path),
    )


def own_statistics(path: Path) -> Path | None:
    """
    :param path: a model's zip file
    :return: the ``VecNormalize`` statistics saved with this very model, as :class:`sb3_pave.callbacks.SmoothnessEvalCallback`
        and SB3's ``CheckpointCallback`` do it, None if there are none. The zoo's are those of the end of training.
    """
    names = [statistics_name(path.stem)]
    if checkpoint := re.fullmatch(r"(.*)_(\d+_steps)", path.stem):
        names.append("{}_vecnormalize_{}.pkl".format(*checkpoint.groups()))
    return next(filter(Path.is_file, map(path.with_name, names)), None)


def check_spaces(agent: Agent, model: BaseAlgorithm, env: VecEnv) -> None:
    """
    :param agent: an agent
    :param model: its model
    :param env: its environment
    :raises AgentError: if the model was trained on observations or actions of another shape, or on actions of other bounds
    """
    for what in ("observation", "action"):
        trained, given = (_shape(getattr(one, f"{what}_space")) for one in (model, env))
        if trained != given:
            raise AgentError(
                f"{agent.model_path} was trained with {what}s of shape {trained}, but those of this environment have {given}: "
                + _TRAINED_IN
            )
    own: Any = model.action_space
    taken: Any = env.action_space
    # Of observations they may differ, with the arguments of an environment for example
    if (
        isinstance(own, spaces.Box)
        and isinstance(taken, spaces.Box)
        and not (np.array_equal(own.low, taken.low) and np.array_equal(own.high, taken.high))
    ):
        raise AgentError(f"{agent.model_path} acts in {own}, but this environment takes {taken}: {_TRAINED_IN}")


def _shape(space: spaces.Space) -> Any:
    """What a network has to fit."""
    if isinstance(space, spaces.Dict):
        return {key: _shape(one) for key, one in sorted(space.spaces.items())}
    if isinstance(space, spaces.Box) and is_image_space(space) and not is_image_space_channels_first(space):
        # As SB3 trains and predicts
        return VecTransposeImage.transpose_space(space).shape
    return getattr(space, "n", None) or space.shape
