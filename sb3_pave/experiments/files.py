"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

from sb3_pave.evaluation.plain_data import plain

_COPIED = "# A copy, for those who find this folder; paths in it start where the original lies.\n"


def make_folder(folder: Path) -> None:
    """
    :param folder: a folder that is made, with those above it, if it is not there
    :raises NotADirectoryError: if it, or one above it, is a file
    :raises OSError: if it can't be made
    """
    taken = next(one for one in (folder, *folder.parents) if os.path.exists(one))  # no error of a name that is too long
    if not taken.is_dir():
        raise NotADirectoryError(f"{taken} is a file, not a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(f"the folder {folder} can't be made: {error.strerror}") from error


def write_json(path: Path, data: Any, indent: int | None = None) -> None:
    """
    Write strict JSON under another name, bring it to the disk, then rename it: whoever sees the file sees all of it.

    :param path: the file
    :param data: mappings, sequences, strings and numbers; what is not finite becomes null
    :param indent: as in :func:`json.dumps`
    :raises OSError: if it can't be written; nothing is left behind then
    """
    _write(path, json.dumps(plain(data), allow_nan=False, indent=indent) + "\n")


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def last_byte(path: Path) -> bytes:
    """
    :param path: a file
    :return: its last byte, by which it is seen whether it was written to its end; nothing of an empty one
    """
    with path.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
        return file.read(1)


def bring_to_disk(folder: Path) -> None:
    """
    :param folder: a folder whose files are to outlast a loss of power, when it is renamed
    :raises OSError: if they can't be written
    """
    for path in (*folder.rglob("*"), folder):
        if path.is_dir() and os.name != "posix":
            continue  # Windows does not open folders
        descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def copy_into(path: Path, folder: Path) -> None:
    """
    :param path: a YAML file
    :param folder: has a copy of it then, of the same name, that says it is one
    :raises FileExistsError: if another file has the name, which is no copy of ours
    :raises OSError: if it can't be written
    """
    target, text = folder / path.name, path.read_text(encoding="utf-8")
    there = target.read_text(encoding="utf-8") if target.is_file() else _COPIED
    if there in (text, _COPIED + text):
        return
    if not there.startswith(_COPIED):
        raise FileExistsError(f"{target} is another file than {path}, which would be copied there: rename one of them")
    _write(target, _COPIED + text)


class UnreadableFile(ValueError):
    """A file that was written and can't be read."""


def read_json(path: Path) -> Any:
    """
    :param path: a file of :func:`write_json`
    :return: its data
    :raises UnreadableFile: if it can't be read, by name
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UnreadableFile(f"{path} could not be read: {error}") from error
