"""The tries of a run: a folder for each time that its training was begun."""

from __future__ import annotations

from pathlib import Path

# Where they lie in the folder of a run, and what one of them holds: how it began, how far it is, how its training ended
TRIES = "tries"
TRY_FILE, STEPS_FILE, TRAINED_FILE = "try.json", "steps.txt", "trained.json"


def tries(folder: Path) -> list[Path]:
    """
    :param folder: folder of a run
    :return: its tries, the newest last
    """
    return sorted((path for path in folder.glob(f"{TRIES}/*") if path.name.isdigit()), key=lambda path: int(path.name))


def next_try(folder: Path) -> Path:
    """
    :param folder: folder of a run
    :return: folder of its next try, which is not there yet
    """
    return folder / TRIES / str(1 + max((int(path.name) for path in tries(folder)), default=0))


def trained_try(folder: Path) -> Path | None:
    """
    :param folder: folder of a run
    :return: the newest of its tries that was trained to its end; None if there is none
    """
    return next((path for path in reversed(tries(folder)) if (path / TRAINED_FILE).is_file()), None)
