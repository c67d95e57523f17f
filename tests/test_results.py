"""The tables that README and the pages of results show are those of the committed result files."""

import json
import re
from itertools import zip_longest
from pathlib import Path

import pytest

from examples import units

pytest.importorskip("rliable")

from sb3_pave.experiments.report import report
from sb3_pave.experiments.report_tables import task_table

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "examples" / "results"
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Folders of results and the pages that show them
PAGES = {
    "pendulum_td3": "pendulum_td3.md",
    "pendulum_sac": "pendulum_sac.md",
    "pendulum_sb3": "pendulum_sb3.md",
    "lander_sac": "robots.md",
    "lander_sac_long": "robots.md",
    "hopper_sac": "robots.md",
    "walker2d_td3": "robots.md",
}
# Rows of README's first table: the folder and the method
FIRST_ROWS = [
    *(("pendulum_td3", method) for method in ("TD3", "PAVE, scale_free", "PAVE")),
    *(("pendulum_sac", method) for method in ("SAC", "PAVE, scale_free", "PAVE")),
]
# Those of its table of rivals: the method, and what it is called where its gradient step was timed
RIVAL_ROWS = {
    "`TD3`": ("TD3", "host"),
    "`PAVE_TD3`": ("PAVE, scale_free", "pave"),
    "`PAVE_TD3`, `pave_interval=4`": ("PAVE, scale_free, every 4th update", "every 4th update"),
    "`damper(PAVE_TD3)`, weights published for the task": ("PAVE + DAMPER", "damper and pave"),
    **{f"`{name.lower()}(TD3)`": (name, name.lower()) for name in ("CAPS", "DAMPER", "temporal", "GRAD", "ASAP")},
}
# Those of its table of robots: the method; its columns: the folders
ROBOT_ROWS = {
    "`SAC`": "SAC",
    "`PAVE_SAC`": "PAVE, scale_free",
    "`PAVE_SAC`, weights published for the task": "PAVE",
    "`damper(SAC)`": "DAMPER",
    "`damper(PAVE_SAC)`, weights published for the task": "PAVE + DAMPER",
}
ROBOT_FOLDERS = ("hopper_sac", "lander_sac")


def rows_of(text: str) -> list[list[str]]:
    """The cells of every table's rows, without emphasis and with a minus that programs know."""
    plain = text.replace("\N{MINUS SIGN}", "-").replace("**", "")
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in plain.splitlines() if line.startswith("| ")]


@pytest.fixture(scope="module")
def tasks():
    """The only task of each folder of results."""

    def task(folder: str):
        (one,) = report(RESULTS / folder)["tasks"]
        return one

    return {folder: task(folder) for folder in PAGES}


@pytest.mark.parametrize("folder", PAGES)
def test_a_page_shows_the_report_of_its_runs(folder, tasks):
    """The wall time of runs that share a machine says nothing: it is not shown."""
    shown = rows_of((RESULTS / PAGES[folder]).read_text(encoding="utf-8"))
    table = task_table(tasks[folder]).drop(columns="training (min)")
    for method, *cells in table.itertuples(index=False, name=None):
        # A page may say more of a method than its name
        assert any(row[0].startswith(method) and row[1:] == cells for row in shown), (method, cells)


def test_readmes_first_table_is_what_was_measured(tasks):
    table = README.split("## ")[0]
    shown = rows_of(table)[2:]
    assert len(shown) == len(FIRST_ROWS)
    for row, (folder, method) in zip(shown, FIRST_ROWS, strict=True):
        assert row[1:] == intervals(entry_of(tasks, folder, method)), row[0]
    (n_seeds,) = {len(entry_of(tasks, folder, method)["seeds"]) for folder, method in FIRST_ROWS}
    assert f"Pendulum-v1, {n_seeds} seeds" in table


def test_readmes_table_of_rivals_is_what_was_measured(tasks):
    section = README.split("## PAVE and its rivals")[1].split("\n## ")[0]
    shown = {row[0]: row[1:] for row in rows_of(section)}
    timings = json.loads((RESULTS / "bench_rivals_td3_amd.json").read_text())["timings"]
    ratios = {one["variant"]: one["ratio"][1] for one in timings}
    for label, (method, variant) in RIVAL_ROWS.items():
        entry = entry_of(tasks, "pendulum_td3", method)
        assert shown[label] == [str(len(entry["seeds"])), *intervals(entry), f"{ratios[variant]:.2f}"], label


def test_readmes_table_of_robots_is_what_was_measured(tasks):
    table = README.split("**Robots**")[1].split("\n## ")[0]
    assert "three seeds each" in table
    assert rows_of(table)[2:] == [[label, *robot_cells(tasks, method)] for label, method in ROBOT_ROWS.items()]


def robot_cells(tasks, method: str) -> list[str]:
    cells = []
    for folder in ROBOT_FOLDERS:
        entry = entry_of(tasks, folder, method)
        assert len(entry["seeds"]) == 3
        cells += intervals(entry, ("return", "sm"))
    return cells


ON_A_CPU = ("host", "pave", "compiled", "every 4th update", "every 4th update, compiled")
ON_A_GPU = ("host", "host, graphs", "graphs", "graphs, compiled")


def test_readmes_times_are_what_was_measured():
    section = README.split("## What PAVE costs")[1].split("\n## ")[0]
    found = [(file[1], cells) for label, *cells in rows_of(section) if (file := re.search(r"(bench_\w+\.json)", label))]
    assert len(found) == 6
    for file, cells in found:
        timings = {one["variant"]: one for one in json.loads((RESULTS / file).read_text())["timings"]}
        for variant, cell in zip_longest(ON_A_GPU if "h200" in file else ON_A_CPU, cells, fillvalue=""):
            # Ratio, milliseconds and environment steps a second, as far as they are shown; an older file has fewer variants
            shown = re.findall(r"[\d.]+", cell)
            assert shown or variant not in timings, (file, variant)
            one = timings.get(variant)
            assert not shown or set(shown) <= measured_times(one), (file, variant, shown)


def measured_times(one) -> set[str]:
    ratio, ms, steps = one["ratio"][1], one["ms"][1], (one["env_steps_per_s"] or [None, 0])[1]
    return {f"{ratio:.2f}".removesuffix(".00"), f"{ms:.1f}", f"{ms:.2f}", f"{steps:.0f}"}


def entry_of(tasks, folder: str, method: str):
    (entry,) = [one for one in tasks[folder]["methods"] if one["method"] == method]
    return entry


def intervals(entry, measures=("return", "sm", "sm_noise_0.1")) -> list[str]:
    return [interval(entry["measures"][name], 0 if name == "return" else 2) for name in measures]


def interval(value, digits: int) -> str:
    iqm, low, high = (value[name] and f"{value[name]:.{digits}f}" for name in ("iqm", "low", "high"))
    return f"{iqm} [{low}, {high}]" if low else iqm


@pytest.mark.parametrize("page", ["README.md", "examples/results/units.md"])
def test_the_table_of_units_is_what_was_measured(page):
    shown = rows_of((ROOT / page).read_text(encoding="utf-8"))
    expected = [sorted(row[1:]) for row in rows_of(units.table(RESULTS / "units"))[2:]]  # its columns have another order
    assert len(expected) == 5 and all(cells in [sorted(row[1:]) for row in shown] for cells in expected)
