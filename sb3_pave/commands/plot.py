"""``sb3-pave plot``: the pictures of a report."""

from __future__ import annotations

import argparse
from pathlib import Path

from sb3_pave.commands.extras import naming_the_extra

KINDS = ("traces", "spectra", "scatter", "robustness", "surfaces", "training")


def main(argv: list[str]) -> None:
    """
    Entry point of the command.

    :param argv: its arguments
    """
    parser = argparse.ArgumentParser(
        prog="sb3-pave plot",
        description="Draw what sb3-pave evaluate has saved.",
        epilog="example: sb3-pave plot evaluation-Pendulum-v1.json --kind traces surfaces -o images",
    )
    parser.add_argument("report", metavar="report.json", help="a report of sb3-pave evaluate")
    parser.add_argument("--kind", nargs="+", choices=KINDS, help="what to draw (default: all that the report has numbers for)")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="folder for the pictures (default: that of the report)")
    parser.add_argument("--format", default="png", choices=("png", "svg", "pdf"), help="file format (default: png)")
    parser.add_argument("--overwrite", action="store_true", help="replace pictures of the same name")
    args = parser.parse_args(argv)
    with naming_the_extra(parser, "eval"):
        from sb3_pave.evaluation.output_path import check_free, check_writable
        from sb3_pave.evaluation.plots import draw, left_out
        from sb3_pave.evaluation.report_files import load_report

    source = Path(args.report)
    folder = source.parent if args.output is None else Path(args.output)
    files = {kind: folder / f"{source.stem}_{kind}.{args.format}" for kind in args.kind or KINDS}
    try:
        report = load_report(source)
        check_free(files.values(), args.overwrite)
        check_writable(files.values())
        for kind, file in files.items():
            try:
                figure = draw(kind, report)
            except ValueError as error:
                if args.kind:
                    raise
                print(f"No {kind}: {error}")
                continue
            figure.savefig(file)
            without = left_out(kind, report)
            print(f"Saved {file}" + (f", without {', '.join(without)}" if without else ""))
    except (OSError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
