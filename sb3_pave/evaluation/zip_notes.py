"""What is said of zip files whose settings or statistics may not be those that the user thinks of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sb3_pave.evaluation.agents import Agent, own_statistics
from sb3_pave.evaluation.run_folder import settings_of


def notes_of_zips(agents: Sequence[Agent], env_id: str, statistics_named: bool) -> list[str]:
    """
    :param agents: from zip files
    :param env_id: the environment
    :param statistics_named: whether the user named ``VecNormalize`` statistics
    :return: sentences on settings and statistics that are used, or not, where the user may think otherwise
    """
    notes = [_trained_elsewhere(agent, env_id) for agent in agents]
    if not statistics_named:
        notes += [unused_statistics(agent.model_path) for agent in agents]
    return [note for note in notes if note is not None]


def _trained_elsewhere(agent: Agent, env_id: str) -> str | None:
    from huggingface_sb3 import EnvironmentName

    if agent.stats_path is None or agent.stats_path.name == EnvironmentName(env_id):
        return None
    return (
        f"{agent.model_path} was trained in {agent.stats_path.name}: its arguments of the environment, wrappers and "
        f"normalisation there are used in {env_id}"
    )


def unused_statistics(path: Path) -> str | None:
    """
    :param path: zip file of a model for which the user names no statistics
    :return: a sentence on statistics beside it that may be its own or another model's; None if there are none, or those of
        this very model, or settings of its run, by which it is known what it was trained with
    """
    # Those of the whole folder, if there are any, come first
    beside = sorted(path.parent.glob("*vecnormalize*.pkl"), key=lambda file: (file.name != "vecnormalize.pkl", file))
    if not beside or own_statistics(path) is not None or settings_of(path):
        return None
    return f"{beside[0]} was not used for {path.name}: if it was trained with these statistics, name them by --vec-normalize"
