"""The table of what works with what says what the scenarios test."""

import re
from pathlib import Path

from tests.algorithms.scenarios import ALGORITHMS, SCENARIOS, host_of

TABLE = Path(__file__).parents[2] / "examples" / "results" / "compatibility.md"


def test_each_cell_of_the_table_is_backed_by_a_scenario():
    text = TABLE.read_text(encoding="utf-8")
    header = "| | " + " | ".join(f"`{algorithm.__name__}`" for algorithm in ALGORITHMS) + " | scenario |"
    rows = text[text.index(header) :].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if not row.startswith("| **")]
    assert len(rows) > 20
    for label, *cells, scenarios in rows:
        names = re.findall(r"`(\w+)`", scenarios)
        assert names, label
        for algorithm, cell in zip(ALGORITHMS, cells, strict=True):
            tested = any(host_of(algorithm) in SCENARIOS[name].hosts for name in names)
            assert cell == ("✓" if tested else "\N{EN DASH}"), (label, algorithm.__name__)
