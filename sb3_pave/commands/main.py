"""``sb3-pave``: RL Zoo's commands with PAVE registered, and PAVE's own."""

import argparse
import difflib
import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sb3_pave import __version__
from sb3_pave.commands.extras import find_modules_here, naming_the_extra, why_package_failed


class ZooCommand(NamedTuple):
    """
    A command of the zoo.

    :param summary: one line for the help
    :param module: the zoo's module
    :param function: the function in it that is the command; None where the module itself is
    :param view_only: whether it loads agents only to look at them
    """

    summary: str
    module: str
    function: str | None = None
    view_only: bool = False


class OwnCommand(NamedTuple):
    """
    A command of PAVE.

    :param summary: one line for the help
    :param module: the module whose ``main(argv)`` it is
    """

    summary: str
    module: str


ZOO_COMMANDS = {
    "train": ZooCommand("train an agent, or search for hyperparameters (-optimize)", "rl_zoo3.train", "train"),
    "enjoy": ZooCommand("watch a trained agent", "rl_zoo3.enjoy", "enjoy", view_only=True),
    "plot_train": ZooCommand("plot the training of one experiment", "rl_zoo3.plots", "plot_train"),
    "all_plots": ZooCommand("gather evaluations of several experiments, plot them", "rl_zoo3.plots", "all_plots"),
    "plot_from_file": ZooCommand("plot what all_plots has gathered", "rl_zoo3.plots", "plot_from_file"),
    "record_video": ZooCommand("record a trained agent", "rl_zoo3.record_video", view_only=True),
    "record_training": ZooCommand("record an agent's checkpoints, one after the other", "rl_zoo3.record_training"),
    "benchmark": ZooCommand("evaluate every agent in a folder", "rl_zoo3.benchmark"),
    "push_to_hub": ZooCommand("upload an agent to the Hugging Face Hub", "rl_zoo3.push_to_hub", view_only=True),
    "load_from_hub": ZooCommand("download an agent from the Hugging Face Hub", "rl_zoo3.load_from_hub"),
}

OWN_COMMANDS = {
    "evaluate": OwnCommand("measure an agent: return, smoothness, robustness, geometry", "sb3_pave.commands.evaluate"),
    "plot": OwnCommand("draw what evaluate has measured", "sb3_pave.commands.plot"),
    "film": OwnCommand("film agents side by side, with the traces of their actions", "sb3_pave.commands.film"),
    "tune": OwnCommand("search hyperparameters: return up, sm down", "sb3_pave.commands.tune"),
    "export": OwnCommand("export the policy for a robot", "sb3_pave.commands.export"),
    "experiment": OwnCommand("run and report a grid: environments, seeds, methods", "sb3_pave.commands.experiment"),
    "bench": OwnCommand("time PAVE's updates against those of its host", "sb3_pave.commands.bench"),
}

# What the zoo's commands import, some of it without declaring it; the extra "zoo" has it all
ZOO_REQUIREMENTS = {"rl_zoo3", "requests", "seaborn", "scipy", "pandas", "matplotlib", "moviepy"}


def main(argv: Sequence[str] | None = None) -> None:
    """
    Entry point of ``sb3-pave`` and of ``python -m sb3_pave``.

    :param argv: the command and its arguments; those of the process by default
    """
    command, *arguments = (sys.argv[1:] if argv is None else argv) or [""]
    parser = _parser()
    if command.startswith("-"):
        parser.parse_args([command])
    elif command in ZOO_COMMANDS:
        _run_zoo_command(parser, command, arguments)
    elif command in OWN_COMMANDS:
        importlib.import_module(OWN_COMMANDS[command].module).main(arguments)
    else:
        parser.error(_unknown(command))


def _run_zoo_command(parser: argparse.ArgumentParser, command: str, arguments: list[str]) -> None:
    _, module, function, view_only = ZOO_COMMANDS[command]
    with naming_the_extra(parser, "zoo", ZOO_REQUIREMENTS, command):
        from sb3_pave.zoo.errors import ZooError
        from sb3_pave.zoo.running import run

        prog = f"{parser.prog} {command}"
        # Wrappers and callbacks of a file, configurations, environments
        find_modules_here()
        with_packages = any(argument.startswith("--gym") for argument in arguments)
        for package in _gym_packages(arguments):
            try:
                importlib.import_module(package)
            except ImportError:
                pass  # the zoo meets it, too
            except Exception as error:  # whatever a module of the user raises
                parser.exit(1, f"{prog}: --gym-packages: {why_package_failed(package, error)}\n")
        try:
            run(module, function, arguments, prog=prog, view_only=view_only)
        except ZooError as error:
            parser.exit(1, f"{prog}: {error}\n")
        except ModuleNotFoundError as error:
            if not with_packages or error.name not in _with_parents(arguments):
                raise
            parser.exit(1, f"{prog}: --gym-packages: {why_package_failed(error.name or '', error)}\n")


def _gym_packages(arguments: Sequence[str]) -> list[str]:
    """What the zoo will import before anything else."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--gym-packages", nargs="*", default=[])
    return parser.parse_known_args(arguments)[0].gym_packages


def _with_parents(modules: Sequence[str]) -> set[str]:
    """Names of modules, and of the packages that they lie in."""
    parts = [module.rpartition("=")[2].split(".") for module in modules]
    return {".".join(names[: i + 1]) for names in parts for i in range(len(names))}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sb3-pave",
        usage="sb3-pave [-h] [--version] COMMAND ...",
        description="RL Zoo's commands with the PAVE algorithms registered, and PAVE's own.",
        epilog=_list_of_commands(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sb3-pave {__version__}")
    return parser


def _list_of_commands() -> str:
    groups: dict[str, Mapping[str, ZooCommand | OwnCommand]] = {
        "RL Zoo's commands, with every option they have there:": ZOO_COMMANDS,
        "PAVE's commands:": OWN_COMMANDS,
    }
    lines = []
    for title, commands in groups.items():
        lines += [title, *(f"  {name:<16} {command.summary}" for name, command in commands.items()), ""]
    return "\n".join((*lines, "sb3-pave COMMAND --help lists the options of a command."))


def _unknown(command: str) -> str:
    if not command:
        return "which command? sb3-pave --help lists them"
    known = [*ZOO_COMMANDS, *OWN_COMMANDS]
    closest = difflib.get_close_matches(command, known, n=1)
    hint = f"did you mean {closest[0]}?" if closest else "sb3-pave --help lists them"
    return f"unknown command {command!r}; {hint}"
