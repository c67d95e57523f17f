"""The journal of a search: one JSON object a line, which Optuna reads from the first to the last."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from sb3_pave.experiments.files import last_byte


def open_journal(path: Path) -> BaseStorage:
    """
    :param path: the file; made where there is none
    :return: a storage that works over NFS
    :raises ValueError: if it can't be read, by name
    """
    with contextlib.suppress(OSError):  # to look at it, it need not be writable
        _cut_unfinished_line(path)
    try:
        return JournalStorage(JournalFileBackend(str(path)))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} could not be read: {error}. Search in another folder, or remove the line that is no JSON"
        ) from error


def _cut_unfinished_line(path: Path) -> None:
    """
    Who died while writing, or met a full disk, has left a line without an end. Optuna could not read it, and would write the
    next one behind it. The trial that it was about counts as dead, and is tried again.
    """
    if not path.is_file() or last_byte(path) in (b"", b"\n"):
        return
    lock = JournalFileSymlinkLock(str(path))  # a line that is being written is finished then
    lock.acquire()
    try:
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)
    finally:
        lock.release()
