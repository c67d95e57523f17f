"""The files of a report: JSON, of which the pictures are drawn, and its tables as CSV and Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sb3_pave.evaluation.output_path import check_free
from sb3_pave.evaluation.plain_data import plain
from sb3_pave.evaluation.report import FORMAT
from sb3_pave.evaluation.tables import episode_table, geometry_table, markdown

#: Endings of the files of a report
SUFFIXES = {"json": ".json", "csv": ".csv", "geometry": "_geometry.csv", "markdown": ".md"}


def saved_files(base: str | Path) -> dict[str, Path]:
    """
    :param base: path without a suffix
    :return: the files that :func:`save_report` writes, by kind
    """
    base = Path(base)
    return {kind: base.with_name(base.name + suffix) for kind, suffix in SUFFIXES.items()}


def save_report(report: Mapping[str, Any], base: str | Path, overwrite: bool = False) -> list[Path]:
    """
    Save as JSON (everything), CSV (a row for each episode, and one for each run's geometry) and Markdown (the table).

    :param report: a report
    :param base: path without a suffix
    :param overwrite: whether to replace files that exist
    :return: the files written
    :raises FileExistsError: if one of them exists
    """
    files = saved_files(base)
    check_free(files.values(), overwrite)
    files["json"].parent.mkdir(parents=True, exist_ok=True)
    files["json"].write_text(json.dumps(plain(report), allow_nan=False) + "\n", encoding="utf-8")
    episode_table(report).to_csv(files["csv"], index=False)
    files["markdown"].write_text(markdown(report), encoding="utf-8")
    geometry = geometry_table(report)
    if geometry.empty:
        files["geometry"].unlink(missing_ok=True)  # of an older report of this name
        del files["geometry"]
    else:
        geometry.to_csv(files["geometry"], index=False)
    return list(files.values())


def load_report(path: str | Path) -> dict[str, Any]:
    """
    :param path: a JSON file of :func:`save_report`
    :return: the report
    :raises ValueError: if the file is not a report
    """
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} could not be read: {error}") from error
    if not isinstance(report, dict) or report.get("format") != FORMAT or not report.get("runs"):
        raise ValueError(f'{path} is not a report of "sb3-pave evaluate"')
    return report
