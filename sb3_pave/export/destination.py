"""The file that is written: nothing is lost, nothing half-written stays, and what can't be written is said beforehand."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sb3_pave.export.errors import ExportError


@contextmanager
def destination(path: str | os.PathLike, overwrite: bool) -> Iterator[Callable[[bytes], None]]:
    """
    Make the folder and try the file before the work, write after it. The file appears as a whole; without it, folders that
    were made are removed again.

    :param path: the file
    :param overwrite: whether to replace one that exists
    :return: a function that writes the file
    :raises FileExistsError: if the file exists
    :raises ExportError: if there can be no such file
    """
    made: list[Path] = []
    partial = None
    try:
        try:
            _check_free(Path(path), overwrite)
            target = Path(path).resolve()
            made = _make_folder(target.parent)
            partial = target.with_name(f".{target.name[:64]}.{os.getpid()}.partial")
            partial.touch()
        except FileExistsError:
            raise
        except (OSError, ValueError, RuntimeError) as error:  # the latter two: what is no path, links in a circle
            raise ExportError(f"{path} can't be written: {getattr(error, 'strerror', None) or error}") from error

        def write(content: bytes) -> None:
            try:
                partial.write_bytes(content)
                os.replace(partial, target)
            except OSError as error:
                raise ExportError(f"{path} can't be written: {error.strerror or error}") from error

        yield write
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)
        for folder in made:
            if not any(folder.iterdir()):
                folder.rmdir()


def _check_free(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise ExportError(f"{path} is a folder: name the file to write")
    if os.path.lexists(path):
        if not overwrite:
            raise FileExistsError(f"{path} exists: choose another name, or overwrite it (--overwrite, overwrite=True)")
        if path.exists() and not path.is_file():
            raise ExportError(f"{path} is no ordinary file")
        if path.exists() and not os.access(path, os.W_OK):
            raise ExportError(f"{path} is write-protected")


def _make_folder(folder: Path) -> list[Path]:
    """:return: the folders made, innermost first"""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "its folder is a file")
    return missing
