"""Which agents a command is about: runs in a log folder of the zoo, or zip files."""

import argparse
import importlib
from collections.abc import Iterable, Sequence
from typing import Any

from sb3_pave.commands.extras import naming_the_extra


def add_agents(parser: argparse.ArgumentParser, verb: str) -> None:
    """
    :param parser: gets the arguments that name agents
    :param verb: what the command does to them
    """
    add = parser.add_argument
    add("models", nargs="*", metavar="model.zip", help=f"models to {verb}, in place of runs in a log folder")
    add("--env", required=True, help="environment id")
    add("--algo", nargs="+", default=[], help="algorithms: of the runs, or of the zip files (read from them by default)")
    add("-f", "--folder", default="logs", help="log folder of the zoo (default: logs)")
    add("--load-best", action="store_true", help="take each run's best model, not its last")


def add_surroundings(parser: argparse.ArgumentParser) -> None:
    """
    :param parser: gets the arguments about where the agents run
    """
    add = parser.add_argument
    add("--device", default="auto", help="PyTorch device (default: auto)")
    add("--gym-packages", nargs="+", default=[], help="packages to import that register environments")
    add("--no-progress", action="store_true", help="no progress bar")


def check_agents(parser: argparse.ArgumentParser, args: argparse.Namespace, verb: str, one_for_each: Iterable[str]) -> None:
    """
    Ends the command if its arguments don't say which agents.

    :param parser: of the command
    :param args: with ``add_agents``, and ``vec_normalize``
    :param verb: as for ``add_agents``
    :param one_for_each: options with a value for all zip files or one for each, beside ``--algo``
    """
    n_models = len(args.models)
    if not n_models and not args.algo:
        parser.error(f"say what to {verb}: --algo with a log folder, or model.zip files")
    if args.vec_normalize and not n_models:
        parser.error("--vec-normalize goes with zip files; runs in a log folder bring their own statistics")
    for option in ("--algo", *one_for_each):
        given = getattr(args, option.strip("-").replace("-", "_")) or []
        if n_models and given and len(given) not in (1, n_models):
            parser.error(f"{n_models} zip files need one {option} for all of them or one for each, not {len(given)}")


def for_each(given: Sequence[Any] | None, n: int) -> list[Any]:
    """
    :param given: one for all, one for each, or none
    :param n: how many there are
    """
    return list(given) if given and len(given) == n else list(given or [None]) * n


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
    for package in gym_packages:
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            parser.exit(1, f"{parser.prog}: --gym-packages: {error}\n")
