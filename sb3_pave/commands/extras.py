"""What a command needs beyond this package: packages of an extra, and modules of the user."""

import argparse
import importlib
import os
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager


@contextmanager
def naming_the_extra(
    parser: argparse.ArgumentParser, extra: str, packages: Collection[str] | None = None, command: str = ""
) -> Iterator[None]:
    """
    Ends the command where a package is missing, and says what to install.

    :param parser: of the command
    :param extra: what of ours brings the package
    :param packages: what the extra brings; any other error stays as it is. None: whatever is missing
    :param command: of the parser's, for the message
    """
    try:
        yield
    except ModuleNotFoundError as error:
        prog = f"{parser.prog} {command}".rstrip()
        if 'pip install "sb3-pave[' in str(error) and f"[{extra}]" not in str(error):  # another one of ours
            parser.exit(1, f"{prog}: {error}\n")
        missing = (error.name or "").partition(".")[0]
        if packages is not None and missing not in packages:
            raise
        parser.exit(1, f'{prog} needs {missing}, which is not installed: pip install "sb3-pave[{extra}]"\n')


def find_modules_here() -> None:
    """
    Let modules in the current folder be imported, as ``python -m`` does; the last of all, so that no file there can stand in
    for what is installed. Not where Python was told that the folder is not safe (``-P``, ``PYTHONSAFEPATH``).
    """
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path and not getattr(sys.flags, "safe_path", False):
        sys.path.append(here)


def import_gym_packages(parser: argparse.ArgumentParser, packages: Iterable[str]) -> None:
    """
    Import packages that register environments; ends the command where one can't be imported.

    :param parser: of the command
    :param packages: what ``--gym-packages`` was given
    """
    find_modules_here()
    for package in packages:
        try:
            importlib.import_module(package)
        except Exception as error:  # whatever a module of the user raises
            parser.exit(1, f"{parser.prog}: --gym-packages: {why_package_failed(package, error)}\n")


def why_package_failed(module: str, error: Exception) -> str:
    """
    :param module: a module of the user
    :param error: what it has raised when it was imported
    :return: what that says, and where modules are looked for, or the line that has raised it
    """
    from sb3_pave.evaluation.user_modules import why_not_imported

    reason = why_not_imported(error)
    missing = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
    return reason if missing else f"{module} could not be imported: {reason}"


def hint_of_packages(env_id: str | None) -> str:
    """
    :param env_id: an environment with which something has gone wrong
    :return: what may be missing where nobody has registered it; else nothing
    """
    import gymnasium as gym

    from sb3_pave.evaluation.user_modules import HINT_OF_PACKAGES

    known = env_id is None or env_id in gym.registry
    return "" if known else HINT_OF_PACKAGES
