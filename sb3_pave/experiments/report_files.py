"""The files of a grid's report: tables, numbers and pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sb3_pave.evaluation.output_path import check_free, check_writable
from sb3_pave.experiments.report_tables import markdown, measure_table, run_table


def save_report(report: Mapping[str, Any], folder: str | Path, pictures: bool = True, overwrite: bool = False) -> list[Path]:
    """
    Save as ``report.md`` (the tables, with the pictures), ``report.json`` (everything), ``measures.csv`` (a row for each task,
    method and measure), ``runs.csv`` (a row for each run) and the pictures of each task.

    :param report: a report
    :param folder: where to
    :param pictures: whether to draw
    :param overwrite: whether to replace files that exist
    :return: the files written
    :raises FileExistsError: if one of them exists
    :raises OSError: if one of them can't be written
    """
    folder = Path(folder)
    drawn = {}
    if pictures:
        from sb3_pave.experiments.pictures import draw_all

        drawn = draw_all(report)
    files = [folder / name for name in ("report.md", "report.json", "measures.csv", "runs.csv")]
    figures = {folder / name: figure for of_title in drawn.values() for name, figure in of_title.items()}
    check_free([*files, *figures], overwrite)
    check_writable([*files, *figures])
    files[0].write_text(markdown(report, {title: list(names) for title, names in drawn.items()}), encoding="utf-8")
    files[1].write_text(json.dumps(report, allow_nan=False) + "\n", encoding="utf-8")
    measure_table(report).to_csv(files[2], index=False)
    run_table(report).to_csv(files[3], index=False)
    for path, figure in figures.items():
        figure.savefig(path)
    return [*files, *figures]
