"""Options by their long names."""

import argparse
from typing import Any


def value_of(args: argparse.Namespace, option: str) -> Any:
    """
    :param args: arguments of a command
    :param option: the long name of an option
    :return: what was given for it
    """
    return getattr(args, option.strip("-").replace("-", "_"))


def needs(parser: argparse.ArgumentParser, args: argparse.Namespace, option: str, *others: str) -> None:
    """
    Ends the command if an option is given without any of those that it says more of: it would be ignored.

    :param parser: of the command
    :param args: its arguments, None or False where an option is not given
    :param option: the option
    :param others: the options it goes with
    """
    if value_of(args, option) is not None and not any(value_of(args, other) for other in others):
        parser.error(f"{option} goes with {' or '.join(others)}")
