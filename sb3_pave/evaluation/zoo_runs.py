"""The runs in a log folder of RL Zoo, found as its ``enjoy`` finds them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from sb3_pave.evaluation.agents import Agent, own_statistics
from sb3_pave.evaluation.errors import AgentError, NoModelError
from sb3_pave.evaluation.run_folder import read_settings


def find_runs(
    folder: str | os.PathLike,
    algorithm: str,
    env_id: str,
    exp_ids: Sequence[int] | None = None,
    load_best: bool = False,
    skip: Callable[[str], None] | None = None,
) -> list[Agent]:
    """
    The runs of an algorithm in a log folder of the zoo.

    :param folder: the log folder
    :param algorithm: name of the algorithm in the zoo
    :param env_id: the environment
    :param exp_ids: numbers of the runs, 0 for the latest one with a model; None for all of them
    :param load_best: whether to take the best model of each run in place of the last
    :param skip: called with a sentence on each run without a model yet or whose settings can't be read, where all runs or
        the latest one are asked for; None makes it an error
    :return: the runs, each once
    :raises NoModelError: if no run has a model
    :raises AgentError: if the folder or a run that was asked for by its number is missing, or its settings can't be read
    """
    from huggingface_sb3 import EnvironmentName

    check_algorithm(algorithm, folder)
    of_algorithm, env_name = Path(folder, algorithm), EnvironmentName(env_id)
    numbers = _run_numbers(of_algorithm, env_name)
    # Where no run has a number, the zoo's 0 is the algorithm's folder itself
    if not numbers and (exp_ids is None or (0 in exp_ids and not any(of_algorithm.glob("*.zip")))):
        raise NoModelError(f"No run of {algorithm} on {env_id} in {of_algorithm}")

    def find(number: int) -> Agent:
        return _run(Path(folder), algorithm, env_id, number, load_best)

    found: list[Agent] = []
    for number in numbers if exp_ids is None else exp_ids:
        if exp_ids is None:
            found += _first_with_a_model([number], find, skip)
        elif number == 0 and numbers:
            found += _first_with_a_model(numbers[::-1], find, skip)
        else:
            found.append(find(number))
    if not found:
        raise NoModelError(
            f"No run of {algorithm} on {env_id} in {of_algorithm} has a model yet and settings that can be read"
        )
    return list({agent.model_path: agent for agent in found}.values())


def check_algorithm(algorithm: str, folder: str | os.PathLike | None = None) -> None:
    """
    :param algorithm: name of an algorithm
    :param folder: the log folder in which runs of it are looked for
    :raises AgentError: if there is no such folder, or the name is neither one of the zoo's nor that of a folder in it
    """
    from rl_zoo3.utils import ALGOS

    if folder is not None and not os.path.isdir(folder):
        raise AgentError(f"The log folder {folder} does not exist")
    known = [*ALGOS, *([] if folder is None else sorted(one.name for one in Path(folder).iterdir() if one.is_dir()))]
    if algorithm not in known:
        closest = difflib.get_close_matches(algorithm, known, n=1)
        hint = f"did you mean {closest[0]}?" if closest else f"known are {', '.join(sorted(ALGOS))}"
        raise AgentError(f"There is no algorithm {algorithm}: {hint}")


def _run_numbers(folder: Path, env_name: str) -> list[int]:
    from rl_zoo3.utils import get_latest_run_id

    latest = get_latest_run_id(str(folder), env_name)
    return [number for number in range(1, latest + 1) if (folder / f"{env_name}_{number}").is_dir()]


def _first_with_a_model(
    numbers: Sequence[int], find: Callable[[int], Agent], skip: Callable[[str], None] | None
) -> list[Agent]:
    """The first of some runs that can be found, alone in a list; an empty one if none can."""
    passed_over: list[str] = []
    agents: list[Agent] = []
    taken = ""
    for number in numbers:
        try:
            agents, taken = [find(number)], f"; run {number} is taken"
            break
        except AgentError as error:
            if skip is None:
                raise
            passed_over.append(str(error))
    for sentence in passed_over:
        assert skip is not None
        skip(sentence + taken)
    return agents


def _run(folder: Path, algorithm: str, env_id: str, number: int, load_best: bool) -> Agent:
    from huggingface_sb3 import EnvironmentName
    from rl_zoo3.utils import get_model_path

    env_name = EnvironmentName(env_id)
    try:
        _, model_path, log_path = get_model_path(number, str(folder), algorithm, env_name, load_best=load_best)
        settings = Path(log_path) / env_name
        read_settings(settings)
    except (AgentError, AssertionError, ValueError) as error:
        raise AgentError(f"Run {number} of {algorithm} on {env_id}: {error}") from error
    path = Path(model_path)
    return Agent(algorithm, Path(log_path).name, path, settings, own_statistics(path))
