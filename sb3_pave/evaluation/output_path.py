"""Where a command saves, and whether it may."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path


def output_path(output: str | None, kind: str, env_id: str, ending: str = "", suffixes: Sequence[str] = ()) -> Path:
    """
    :param output: what ``--output`` says, None if it says nothing: a path, or a folder, which exists or ends in a slash
    :param kind: ``KIND-ENV`` and the ending are the name where ``--output`` says none
    :param env_id: the environment
    :param ending: the ending of that name
    :param suffixes: endings that are taken off the path, since each file gets its own
    :return: the path
    """
    name = f"{kind}-{env_id.replace('/', '-').replace(':', '-')}{ending}"
    if output is None:
        return Path(name)
    path = Path(output)
    if os.path.isdir(path) or output.endswith(("/", os.sep)):
        return path / name
    return path.with_suffix("") if path.suffix.lower() in suffixes else path


def check_free(files: Iterable[Path], overwrite: bool, option: str = "--output") -> None:
    """
    :param files: files about to be written
    :param overwrite: whether they may exist
    :param option: what names them
    :raises FileExistsError: if one of them exists
    """
    existing = [str(file) for file in files if os.path.exists(file)]  # no error of a name that is too long
    if existing and not overwrite:
        raise FileExistsError(f"{existing[0]} exists: choose another {option}, or overwrite it (--overwrite, overwrite=True)")


def check_writable(files: Iterable[Path]) -> None:
    """
    Make the folders and try the files before the work that they are for.

    :param files: files about to be written; those that exist stay as they are
    :raises OSError: if one of them can't be written
    """
    for file in files:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            existed = os.path.lexists(file)
            file.open("ab").close()
            if not existed:
                file.unlink()
        except OSError as error:
            in_a_file = isinstance(error, FileExistsError | NotADirectoryError)
            reason = "its folder is a file" if in_a_file else error.strerror
            raise OSError(f"{file} can't be written: {reason}") from error
