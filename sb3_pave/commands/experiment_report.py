"""``sb3-pave experiment report``: tables and pictures of the results of a grid."""

from __future__ import annotations

import argparse
from pathlib import Path

from sb3_pave.commands.extras import naming_the_extra
from sb3_pave.commands.printing import print_frame

EXAMPLES = """examples:
  sb3-pave experiment report results
  sb3-pave experiment report results more_results --methods TD3 PAVE_TD3 --reference TD3 -o tables"""


def main(argv: list[str]) -> None:
    """
    Entry point of the command.

    :param argv: its arguments
    """
    parser = _parser()
    args = parser.parse_args(argv)
    with naming_the_extra(parser, "eval"):
        from sb3_pave.experiments.grouping import ReportError
        from sb3_pave.experiments.report import report
        from sb3_pave.experiments.report_files import save_report
        from sb3_pave.experiments.report_tables import tables
    folder = args.output or Path(args.folders[0]) / "report"
    try:
        made = report(args.folders, args.methods, args.reference)
        files = save_report(made, folder, not args.no_pictures, args.overwrite)
    except (ReportError, OSError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    for title, caption, table in tables(made):
        print_frame(table, f"{caption}\n", title, n_names=1)
    for note in made["notes"]:
        print(f"Note: {note}")
    print("Saved", ", ".join(str(file) for file in files))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sb3-pave experiment report",
        description="Tables and pictures of every result.json in some folders, at any depth.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("folders", nargs="+", metavar="FOLDER", help="folders of grids")
    add("--methods", nargs="+", metavar="METHOD", help="methods to show, in this order (default: all)")
    add("--reference", metavar="METHOD", help="what methods are compared with over tasks (default: the first)")
    add("-o", "--output", metavar="FOLDER", help="where to save (default: the folder report in the first FOLDER)")
    add("--overwrite", action="store_true", help="replace saved files of the same name")
    add("--no-pictures", action="store_true", help="tables only")
    return parser
