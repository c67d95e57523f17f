"""Where the study of a search lies: noted in its folder, so that no later call opens another one by mistake."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sb3_pave.experiments.files import read_json, write_json

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

PLACE_FILE = "study.json"


def check_place(folder: Path, storage: str | None, name: str) -> None:
    """
    :param folder: folder of a search
    :param storage: URL of an Optuna storage; None for the journal in the folder
    :param name: name of the study in it
    :raises ValueError: if the folder's search lies in another storage, or under another name
    """
    path = folder / PLACE_FILE
    if not path.is_file():
        return
    noted = read_json(path)
    if noted != _place(storage, name):
        told = "" if noted["storage"] is None else f"--storage {noted['storage']} "
        raise ValueError(
            f"the search of {folder} lies in {_described(**noted)} (noted in {path}), not in "
            f"{described_place(storage, name)}: go on with {told}--study-name {noted['study_name']}, or search in "
            "another folder"
        )


def note_place(folder: Path, storage: str | None, name: str) -> None:
    """
    :param folder: folder of a search
    :param storage: URL of an Optuna storage; None for the journal in the folder
    :param name: name of the study in it
    """
    path = folder / PLACE_FILE
    if not path.is_file():
        write_json(path, _place(storage, name), indent=1)


def described_place(storage: str | None, name: str) -> str:
    """
    :param storage: URL of an Optuna storage; None for the journal in the folder
    :param name: name of a study in it
    :return: the study, as messages call it
    """
    return _described(**_place(storage, name))


def without_password(url: str) -> str:
    """
    :param url: URL of an Optuna storage
    :return: the URL without passwords, and with the whole path of a file, which means the same from every folder
    :raises ValueError: if it is no such URL
    """
    parsed, file = _parsed(url), database_file(url)
    parsed = parsed.set(query={key: value for key, value in parsed.query.items() if "pass" not in key.lower()})
    if file is not None:
        parsed = parsed.set(database=str(file))
    # A password can't be set to None: that means to leave it as it is
    return parsed._replace(password=None).render_as_string()


def database_file(url: str) -> Path | None:
    """
    :param url: URL of an Optuna storage
    :return: the file that SQLite would make where there is none; None for other databases
    :raises ValueError: if it is no such URL
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database.startswith((":", "file:")):
        return None
    return Path(parsed.database).absolute()


def _parsed(url: str) -> URL:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url)
    except ArgumentError:  # its message may hold the password
        raise ValueError("the storage is no URL of a database; sqlite:///search.db is one") from None


def _place(storage: str | None, name: str) -> dict[str, Any]:
    return {"storage": None if storage is None else without_password(storage), "study_name": name}


def _described(storage: str | None, study_name: str) -> str:
    return f"the study {study_name} of {'the journal in the folder' if storage is None else storage}"
