"""Packages of an extra that is not installed: a sentence in place of a traceback."""

import argparse
from collections.abc import Collection, Iterator
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
        missing = (error.name or "").partition(".")[0]
        if packages is not None and missing not in packages:
            raise
        prog = f"{parser.prog} {command}".rstrip()
        parser.exit(1, f'{prog} needs {missing}, which is not installed: pip install "sb3-pave[{extra}]"\n')
