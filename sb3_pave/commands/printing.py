"""What commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
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


def print_frame(cells: pd.DataFrame, caption: str, title: str | None = None, n_names: int = 0) -> None:
    """
    Print a table, and below it what it shows: the caption that rich's tables may have is as narrow as the table.

    :param cells: text
    :param caption: what it shows
    :param title: above it
    :param n_names: so many of its first columns are names, the others numbers
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for i, column in enumerate(cells.columns):
        table.add_column(column, justify="left" if i < n_names else "right")
    for row in cells.itertuples(index=False, name=None):
        table.add_row(*row)
    console = Console(markup=False)  # brackets in names are no markup
    print_table(console, table)
    console.print(caption, highlight=False)
