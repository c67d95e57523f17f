"""Where ``sb3-pave evaluate`` was before the commands had a room of their own: kept for scripts that call its ``main``."""

from __future__ import annotations


def main(argv: list[str]) -> None:
    """
    Entry point of the command, see ``sb3_pave.commands.evaluate``.

    :param argv: its arguments
    """
    from sb3_pave.commands.evaluate import main as evaluate

    evaluate(argv)
