"""What lies beside a saved model: its own statistics, and in a folder of RL Zoo its environment and those of its run."""

from __future__ import annotations

import ast
import contextlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import load_from_pkl
from stable_baselines3.common.vec_env import VecEnv

from sb3_pave.evaluation.agents import from_zip, own_statistics
from sb3_pave.evaluation.errors import AgentError
from sb3_pave.evaluation.run_folder import model_file, read_settings, settings_of


@dataclass(frozen=True)
class SavedModel:
    """
    A saved model and what was left beside it.

    :param path: the zip file
    :param env_id: the environment that it was trained in, None if that is not known
    :param vec_normalize: the file of its ``VecNormalize`` statistics, None if there is none
    :param replay_buffer: the file of its replay buffer, likewise
    :param is_normalised: whether the settings of its run say that ``VecNormalize`` normalised what it saw
    """

    path: Path
    env_id: str | None = None
    vec_normalize: Path | None = None
    replay_buffer: Path | None = None
    is_normalised: bool = False


def find_model(path: str | os.PathLike) -> SavedModel:
    """
    :param path: the zip file, its name without ``.zip``, or the folder of a run
    :return: the model
    :raises AgentError: if there is none
    """
    path = model_file(Path(path))
    folders = settings_of(path)
    if len(folders) != 1:
        return SavedModel(path, vec_normalize=own_statistics(path))
    (settings,) = folders
    statistics, buffer = settings / "vecnormalize.pkl", path.with_name("replay_buffer.pkl")
    return SavedModel(
        path,
        _env_id(settings),
        own_statistics(path) or (statistics if statistics.is_file() else None),
        buffer if buffer.is_file() else None,
        _is_normalised(settings),
    )


def make_env(saved: SavedModel, model: BaseAlgorithm, env_id: str) -> VecEnv:
    """
    :param saved: where the model lies
    :param model: the model
    :param env_id: the environment
    :return: the environment as the model was trained in it
    :raises AgentError: if it can't be made
    """
    try:
        agent = from_zip(saved.path, env_id, type(model).__name__.lower())
        with contextlib.redirect_stdout(io.StringIO()):  # the zoo says what it loads
            return agent.make_env(env_id)
    except ModuleNotFoundError as error:
        raise AgentError(f'Making environments needs {error.name}: pip install "sb3-pave[eval]"') from error


def load_replay_buffer(saved: SavedModel, model: BaseAlgorithm) -> None:
    """
    Give the model the replay buffer that lies beside it, to look at its observations, not to train on.

    :param saved: where the model lies
    :param model: the model
    :raises AgentError: if the buffer does not load
    """
    if saved.replay_buffer is None or not isinstance(model, OffPolicyAlgorithm):
        return
    try:
        model.replay_buffer = load_from_pkl(saved.replay_buffer)
    except Exception as error:  # a foreign pickle may raise anything
        raise AgentError(f"{saved.replay_buffer} could not be read: {type(error).__name__}: {error}") from error


def check_statistics(saved: SavedModel, statistics: str | os.PathLike | None) -> None:
    """
    :param saved: a model
    :param statistics: what its observations are normalised with
    :raises AgentError: if it was trained on normalised observations, and there is nothing to normalise them with
    """
    if saved.is_normalised and statistics is None:
        raise AgentError(
            f"{saved.path} was trained on observations that VecNormalize normalises, as the settings of its run say, but its "
            "statistics are not there: name their file by --vec-normalize"
        )


def _is_normalised(settings: Path) -> bool:
    """As the zoo reads it: true or false, or the arguments of VecNormalize, which may concern the rewards alone."""
    try:
        _, hyperparams = read_settings(settings)
    except (AgentError, ImportError):  # nobody knows what it says
        return False
    normalize = hyperparams.get("normalize")
    if isinstance(normalize, str):
        with contextlib.suppress(ValueError, SyntaxError):
            normalize = ast.literal_eval(normalize)
    return bool(normalize) and not (isinstance(normalize, dict) and not normalize.get("norm_obs", True))


def _env_id(settings: Path) -> str | None:
    """The id as the zoo wrote it down; the folder's name, where it did not."""
    try:
        import yaml

        with (settings / "args.yml").open() as file:
            # The zoo writes an OrderedDict
            return str(yaml.load(file, Loader=yaml.UnsafeLoader)["env"])
    except Exception:  # no file, no such package, or a file of other content
        return settings.name
