"""The storage of a study: a journal or a database, how it fails, and how a trial gets back into its queue."""

from __future__ import annotations

import contextlib
import copy
import inspect
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial
from sqlalchemy.exc import SQLAlchemyError

from sb3_pave.experiments.journal import open_journal
from sb3_pave.experiments.study_place import without_password

JOURNAL_FILE = "search.journal"

# Seconds between two signs of life of a trial in a database, and until it counts as dead
HEARTBEAT_INTERVAL, GRACE_PERIOD = 30, 180

# A trial whose process has died is tried again twice
MAX_RETRIES = 2

#: Attribute of a trial: who works on it
SEARCHER = "searcher"

#: What a storage raises in the middle of a search
STORAGE_ERRORS = (StorageInternalError, SQLAlchemyError, UpdateFinishedTrialError)


def open_storage(folder: Path, url: str | None) -> Any:
    """
    :param folder: folder of a search
    :param url: URL of an Optuna storage; None for a journal file in the folder
    :return: the storage
    :raises ValueError: if it can't be opened
    """
    return open_journal(folder / JOURNAL_FILE) if url is None else _database(url)


def why_failed(folder: Path, url: str | None, error: Exception) -> str:
    """
    :param folder: folder of a search
    :param url: URL of its storage; None for the journal file in the folder
    :param error: one of ``STORAGE_ERRORS``
    :return: that the storage has failed, and what the database itself says of it
    """
    cause = error.__cause__ or error
    reason = getattr(cause, "orig", None) or cause
    return f"the storage {folder / JOURNAL_FILE if url is None else without_password(url)} failed: {reason}"


def queue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """
    Put a dead trial into the queue, unless it has been there too often.

    :param study: the study
    :param trial: the trial; whoever takes it up signs it
    """
    unsigned = copy.copy(trial)
    unsigned.user_attrs = {name: value for name, value in trial.user_attrs.items() if name != SEARCHER}
    storages: Any = optuna.storages
    name = "RetryHeartbeatStaleTrialCallback"  # since Optuna 4.9
    with experimental():
        retry = getattr(storages, name if hasattr(storages, name) else "RetryFailedTrialCallback")(max_retry=MAX_RETRIES)
    retry(study, unsigned)


@contextlib.contextmanager
def experimental() -> Iterator[None]:
    """Optuna calls its heartbeat, and a good deal else that has been there for years, experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _database(url: str) -> Any:
    known = inspect.signature(optuna.storages.RDBStorage.__init__).parameters
    callback = next(name for name in ("heartbeat_stale_trial_callback", "failed_trial_callback") if name in known)
    beats: dict[str, Any] = {"heartbeat_interval": HEARTBEAT_INTERVAL, "grace_period": GRACE_PERIOD, callback: queue_again}
    shown = without_password(url)
    try:
        with experimental():
            return optuna.storages.RDBStorage(url, **beats)
    except (SQLAlchemyError, StorageInternalError, ImportError) as error:
        raise ValueError(f"the storage {shown} could not be opened: {error}") from error
