"""``sb3-pave experiment``: run a grid of environments, seeds and methods, see how far it is, report its results."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from sb3_pave.commands.extras import find_modules_here, naming_the_extra
from sb3_pave.commands.jobs import add_jobs, jobs_and_gpus
from sb3_pave.commands.printing import print_table

if TYPE_CHECKING:
    from sb3_pave.experiments import Outcome, RunStatus

EXAMPLES = """examples:
  sb3-pave experiment run grid.yml -o results -j 4
  sb3-pave experiment status results
  sb3-pave experiment report results"""


def main(argv: list[str]) -> None:
    """
    Entry point of the command.

    :param argv: its arguments
    """
    if argv[:1] == ["report"]:
        importlib.import_module("sb3_pave.commands.experiment_report").main(argv[1:])
        return
    parser = _parser()
    args = parser.parse_args(argv)
    with naming_the_extra(parser, "experiments", REQUIREMENTS):
        args.function(parser, args)


# What the optional extras bring
REQUIREMENTS = {
    *("rl_zoo3", "joblib", "filelock", "yaml", "rich", "rliable", "pandas", "matplotlib"),
    *("dask", "distributed", "ray"),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sb3-pave experiment",
        description="Grids of runs: environments × seeds × methods. A run is a folder; several machines may share one grid.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="train and measure what has no result yet")
    run.set_defaults(function=_run)
    run.add_argument("specification", metavar="SPEC.yml", help="what to run")
    run.add_argument("-o", "--output", required=True, metavar="FOLDER", help="where the runs go, or are")
    add_jobs(run)
    run.add_argument("--address", help="address of a dask scheduler or a Ray cluster (default: one on this machine)")
    status = commands.add_parser("status", help="which runs are done, which are not")
    status.set_defaults(function=_status)
    status.add_argument("folder", metavar="FOLDER", help="folder of a grid")
    commands.add_parser("report", help="tables and pictures of the results")  # a command of its own: see main
    return parser


def _run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    from sb3_pave.experiments import GridError, Specification, run_grid
    from sb3_pave.experiments.files import copy_into, make_folder

    find_modules_here()  # of the specification, as its runs do
    specification, folder = Path(args.specification), Path(args.output)
    n_jobs, gpus = jobs_and_gpus(args)
    try:
        runs = Specification.load(specification).runs()
        make_folder(folder)
        if specification.resolve() != (folder / specification.name).resolve():
            copy_into(specification, folder)  # what the folder holds, for those who find it
        outcome = run_grid(
            runs, folder, n_jobs, backend=args.backend, gpus=gpus, progress=not args.no_progress, address=args.address
        )
    except (OSError, GridError, ValueError) as error:
        parser.exit(1, f"{parser.prog} run: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog} run: stopped; the same command goes on where it was\n")
    _print_outcome(outcome)
    if outcome.failed:
        parser.exit(1)


def _print_outcome(outcome: Outcome) -> None:
    print(f"{len(outcome.done)} runs done, {len(outcome.failed)} failed")
    for run in outcome.failed:
        print(f"\n{run.folder_name}:\n{outcome.errors[run.key]}")


def _status(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    from sb3_pave.experiments import grid_status

    try:
        found = grid_status(args.folder)
    except ValueError as error:
        parser.exit(1, f"{parser.prog} status: {error}\n")
    _print_status(found)


def _print_status(found: list[RunStatus]) -> None:
    from rich.console import Console
    from rich.table import Table

    from sb3_pave.experiments import RunState

    cells: dict[tuple[str, str], list[RunStatus]] = {}
    for one in found:
        cells.setdefault((one.run["environment"], one.run["method"]), []).append(one)
    states = [state.value for state in RunState]
    table = Table()
    for column in ("environment", "method"):
        table.add_column(column)
    for column in (*states, "steps"):
        table.add_column(column, justify="right")
    for names, ones in [*cells.items(), (("all", ""), found)]:
        counts = [sum(one.state.value == state for one in ones) for state in states]
        total = sum(one.run["steps"] for one in ones)
        share = f"{sum(one.steps for one in ones) / total:.0%}" if total else ""
        table.add_row(*names, *(str(count or "") for count in counts), share)
    console = Console(markup=False)  # brackets in names are no markup
    print_table(console, table)
    for one in found:
        if one.state is RunState.RUNNING:
            steps = one.run["steps"]
            how_far = f"{one.steps} of {steps} steps" if one.steps < steps else "trained, being measured"
            console.print(f"running: {one.folder.name}, {how_far}", highlight=False)
        if one.state is RunState.FAILED:
            console.print(f"failed: {one.folder.name}, see {one.folder / 'log.txt'}", highlight=False)
