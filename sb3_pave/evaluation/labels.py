"""Names of agents that tell them apart, so that only what belongs together is pooled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sb3_pave.evaluation.agents import Agent

# What names of algorithms in the zoo are made of
_ALGORITHM_NAMES = {
    *("a2c", "ars", "crossq", "ddpg", "dqn", "ppo", "lstm", "qrdqn", "sac", "td3", "tqc", "trpo"),
    *("pave", "asap", "caps", "damper", "grad", "temporal"),
}


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


def given_twice(agents: Sequence[Agent]) -> list[str]:
    """
    :param agents: zip files as they were given
    :return: a sentence for each that :func:`told_apart` takes once though it was given more often
    """
    counts = Counter(agent.model_path.resolve() for agent in agents)
    return [f"{path} was given {n} times: it is measured once, under its last label" for path, n in counts.items() if n > 1]


def titles(agents: Sequence[Agent]) -> list[str]:
    """
    :param agents: agents that are shown side by side; the same one may be there twice
    :return: a title for each that no other has: its algorithm and, where others have that too, its run
    """
    algorithms, runs = [agent.algorithm for agent in agents], [agent.run for agent in agents]
    if len(set(zip(algorithms, runs, strict=True))) < len(agents):
        paths = [agent.model_path.resolve() for agent in agents]
        distinct = list(dict.fromkeys(paths))
        of_path = dict(zip(distinct, short_paths(distinct), strict=True))
        runs = [of_path[path] for path in paths]
    names = [
        algorithm if algorithms.count(algorithm) == 1 else f"{algorithm}, {run}"
        for algorithm, run in zip(algorithms, runs, strict=True)
    ]
    return [name if (before := names[:i].count(name)) == 0 else f"{name} ({before + 1})" for i, name in enumerate(names)]


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


def label(algorithm: str) -> str:
    """
    :param algorithm: name of an algorithm in the zoo, and what tells it from others of its name; or a label of the user's
    :return: its name in a picture: ``PAVE SAC`` for ``pave_sac``, ``SAC b/best_model`` for ``sac b/best_model``; labels stay
    """
    name, space, more = algorithm.partition(" ")
    if not _ALGORITHM_NAMES.issuperset(name.rstrip(",").split("_")):
        return algorithm
    return name.upper().replace("_", " ") + space + more
