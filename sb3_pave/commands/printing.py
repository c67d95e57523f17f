"""What commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Columns that no table has
_ENDLESS = 100_000


def print_table(console: Console, table: Table) -> None:
    """
    Print a table as wide as it is: rich would cut its numbers off where the terminal is narrower, or where there is none.

    :param console: where to; what it prints afterwards is as wide as before
    :param table: the table
    """
    from rich.measure import Measurement

    width = console.width
    needed = Measurement.get(console, console.options.update(width=_ENDLESS), table).maximum
    console.width = max(width, needed)
    try:
        console.print(table)
    finally:
        console.width = width
