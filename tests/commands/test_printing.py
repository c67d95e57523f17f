"""Tables are as wide as they are."""

import io

import pytest

from sb3_pave.commands.printing import print_table

Console = pytest.importorskip("rich.console").Console
Table = pytest.importorskip("rich.table").Table


@pytest.mark.parametrize("terminal", [True, False])
def test_no_number_is_cut_off_and_text_is_as_wide_as_before(terminal):
    table = Table("measure", *(f"method {i}" for i in range(9)))
    table.add_row("high-frequency share", *["0.0304 ± 0.00123\n0.0304 [0.0302, 0.0306]"] * 9)
    console = Console(file=io.StringIO(), width=40, force_terminal=terminal, color_system=None)
    print_table(console, table)
    printed = console.file.getvalue()
    assert printed.count("0.0304 ± 0.00123") == printed.count("0.0304 [0.0302, 0.0306]") == 9
    assert "high-frequency share" in printed and len(printed.splitlines()) == 6
    assert console.width == 40


def test_a_small_table_is_no_wider_than_it_needs():
    console = Console(file=io.StringIO(), width=80)
    print_table(console, Table("a", "b"))
    assert max(map(len, console.file.getvalue().splitlines())) < 20
