"""The file that a ``VecNormalize`` is saved to: its name, and what it holds."""

from __future__ import annotations

import os
import pickle

from stable_baselines3.common.vec_env import VecNormalize

from sb3_pave.evaluation.errors import AgentError


def statistics_name(model: str) -> str:
    """
    :param model: name of a model's zip file, without ``.zip``
    :return: name of the file beside it with the statistics of this very model
    """
    return f"{model}_vecnormalize.pkl"


def read_statistics(path: str | os.PathLike) -> VecNormalize:
    """
    As ``VecNormalize.load`` reads them, without an environment to wrap yet.

    :param path: the file
    :return: the wrapper
    :raises AgentError: if the file can't be read or holds something else
    """
    try:
        with open(path, "rb") as file:
            loaded = pickle.load(file)
    except OSError as error:
        raise AgentError(f"{path} could not be read: {error.strerror or error}") from error
    except Exception as error:  # a foreign pickle may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise AgentError(f"{path} could not be read as VecNormalize statistics ({reason})") from error
    if not isinstance(loaded, VecNormalize):
        raise AgentError(f"{path} holds a {type(loaded).__name__}, not VecNormalize statistics")
    return loaded
