"""Names of agents that tell them apart, so that only what belongs together is pooled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sb3_pave.evaluation.agents import Agent


def told_apart(agents: Sequence[Agent], labels: Sequence[str] | None = None) -> list[Agent]:
    """
    Zip files given by hand, each once, under labels of their own: nothing says that two of them are runs of one setting.

    :param agents: the agents
    :param labels: a label for each agent, or one for all: agents of the same label are joined, as runs of one setting. By
        default, the algorithm where it is the only one of its kind, else the algorithm and the name of the run.
    :return: the agents with their labels; runs are called by the end of their path, as short as it can be
    """
    labels = [""] * len(agents) if labels is None else list(labels) * (len(agents) if len(labels) == 1 else 1)
    by_path = {agent.model_path.resolve(): (agent, label) for agent, label in zip(agents, labels, strict=True)}
    counts = Counter(agent.algorithm for agent, _ in by_path.values())
    named = []
    for (agent, label), run in zip(by_path.values(), short_paths(list(by_path)), strict=True):
        own = agent.algorithm if counts[agent.algorithm] == 1 else f"{agent.algorithm} {run}"
        named.append(replace(agent, run=run, label=label or own))
    return named


def short_paths(paths: Sequence[Path]) -> list[str]:
    """
    :param paths: different absolute paths
    :return: the end of each, without its suffix, with as many folders as it takes to be the only one
    """
    parts = [(*path.parts[:-1], path.stem) for path in paths]
    names = []
    for one in parts:
        length = 1
        while length < len(one) and sum(other[-length:] == one[-length:] for other in parts) > 1:
            length += 1
        names.append("/".join(one[-length:]))
    return names
