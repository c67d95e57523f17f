"""Which agents a command is about: runs in a log folder of the zoo, or zip files."""

import argparse
import importlib
from collections.abc import Iterable, Sequence
from typing import Any

from sb3_pave.commands.device import device
from sb3_pave.commands.extras import import_gym_packages, naming_the_extra
from sb3_pave.commands.options import value_of
from sb3_pave.evaluation.agents import Agent, from_zip
from sb3_pave.evaluation.rollout import LARGEST_SEED
from sb3_pave.evaluation.zoo_runs import check_algorithm

DEFAULT_FOLDER = "logs"


def add_agents(parser: argparse.ArgumentParser, verb: str) -> None:
    """
    :param parser: gets the arguments that name agents
    :param verb: what the command does to them
    """
    add = parser.add_argument
    add("models", nargs="*", metavar="model.zip", help=f"models to {verb}, or folders of runs, in place of a log folder")
    add("--env", required=True, help="environment id")
    add("--algo", nargs="+", default=[], help="algorithms: of the runs, or of the zip files (read from them by default)")
    add("-f", "--folder", help=f"log folder of the zoo (default: {DEFAULT_FOLDER})")
    add("--load-best", action="store_true", help="take each run's best model, not its last")


def add_surroundings(parser: argparse.ArgumentParser) -> None:
    """
    :param parser: gets the arguments about where the agents run
    """
    add = parser.add_argument
    add("--device", type=device, default="auto", help="PyTorch device (default: auto)")
    add("--gym-packages", nargs="+", default=[], help="packages to import that register environments")
    add("--no-progress", action="store_true", help="no progress bar")


def check_agents(parser: argparse.ArgumentParser, args: argparse.Namespace, verb: str, one_for_each: Iterable[str]) -> None:
    """
    Ends the command if its arguments don't say which agents, or say something that would be ignored.

    :param parser: of the command
    :param args: with ``add_agents``, ``exp_id``, ``vec_normalize`` and ``seed``
    :param verb: as for ``add_agents``
    :param one_for_each: options with a value for all zip files or one for each, beside ``--algo``
    """
    for option in ("--algo", "--gym-packages", "--vec-normalize"):
        given = value_of(args, option)
        for one in given if isinstance(given, list) else ():
            if one.endswith(".zip"):
                parser.error(f"{one} was taken for a value of {option}: zip files come before the options")
    n_models = len(args.models)
    if not n_models and not args.algo:
        parser.error(f"say what to {verb}: --algo with a log folder, or model.zip files")
    if args.vec_normalize and not n_models:
        parser.error("--vec-normalize goes with zip files; runs in a log folder bring their own statistics")
    if not 0 <= args.seed <= LARGEST_SEED:
        parser.error(f"--seed takes a whole number from 0 to {LARGEST_SEED}")
    for option in ("--folder", "--exp-id", "--load-best"):
        if n_models and value_of(args, option):
            parser.error(f"{option} goes with runs in a log folder (--algo), not with model.zip files")
    for option in ("--algo", *one_for_each):
        given = value_of(args, option) or []
        if n_models and given and len(given) not in (1, n_models):
            parser.error(f"{n_models} zip files need one {option} for all of them or one for each, not {len(given)}")


def zip_agents(args: argparse.Namespace, statistics: Sequence[str] | None) -> list[Agent]:
    """
    :param args: with ``add_agents``
    :param statistics: files of ``VecNormalize`` statistics: one for all zip files, one for each, or None
    :return: the agents of the zip files that were given
    :raises AgentError: if there is no such algorithm, a file is missing or is not a model
    """
    for name in args.algo:
        check_algorithm(name)
    algorithms, files = (_for_each(given, len(args.models)) for given in (args.algo, statistics))
    given = zip(args.models, algorithms, files, strict=True)
    return [from_zip(path, args.env, algorithm, file) for path, algorithm, file in given]


def import_needed(parser: argparse.ArgumentParser, needed: Iterable[str], gym_packages: Iterable[str]) -> None:
    """
    What is needed at the end should not be missed only then.

    :param parser: of the command
    :param needed: modules that the extra ``eval`` brings
    :param gym_packages: of the user
    """
    with naming_the_extra(parser, "eval"):
        for module in needed:
            importlib.import_module(module)
    import_gym_packages(parser, gym_packages)


def _for_each(given: Sequence[Any] | None, n: int) -> list[Any]:
    """Of what is one for all, one for each, or none: one for each."""
    return list(given) if given and len(given) == n else list(given or [None]) * n
