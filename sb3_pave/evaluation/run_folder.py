"""The folder of a run as RL Zoo leaves it: a model, and the settings that it was trained with in a folder beside it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sb3_pave.evaluation.errors import AgentError

# Models that evaluations in training keep, and those of SB3's CheckpointCallback
_KEPT_BY_EVALUATION = ("best_model", "smoothest_model")
_CHECKPOINT = re.compile(r".*_\d+_steps")


def model_file(path: Path) -> Path:
    """
    The zip file that is meant: SB3 leaves out ``.zip`` in names; the zoo names a run's model after its settings' folder.

    :param path: the zip file, its name without ``.zip``, or the folder of a run
    :return: the zip file
    :raises AgentError: if there is none
    """
    zipped = Path(f"{path}.zip")
    if path.is_file():
        return path
    if zipped.is_file():
        return zipped
    inside = [path / f"{settings.name}.zip" for settings in settings_folders(path)]
    if len(inside) == 1 and inside[0].is_file():
        return inside[0]
    if path.is_dir():
        raise AgentError(f"{path} is a folder, and not that of a finished run of the zoo: name the zip file")
    raise AgentError(f"{path} does not exist")


def settings_folders(folder: Path) -> list[Path]:
    """
    :param folder: the folder of a run
    :return: folders in it with settings of a run, one where all is well
    """
    if not folder.is_dir():
        return []
    return [one for one in sorted(folder.iterdir()) if _has_settings(one) or _has_statistics(one)]


def settings_of(model: Path) -> list[Path]:
    """
    :param model: a zip file
    :return: folders beside it with the settings of its run, one where all is well; none for a model that another one's
        settings happen to lie beside
    """
    return [one for one in settings_folders(model.parent) if _has_settings(one) or f"{one.name}.zip" == model.name]


def shares_its_training(model: Path) -> bool:
    """
    :param model: a zip file
    :return: whether what an evaluation in training has left beside it is of its own training: in the folder of a run, for the
        models that it keeps, and for one that lies there alone but for these and checkpoints
    """
    if any(map(_has_settings, settings_folders(model.parent))) or model.stem in _KEPT_BY_EVALUATION:
        return True
    names = {one.stem for one in model.parent.glob("*.zip")}.difference(_KEPT_BY_EVALUATION)
    return sum(not _CHECKPOINT.fullmatch(name) for name in names) <= 1


def _has_settings(folder: Path) -> bool:
    """As the zoo leaves them, for all models beside them."""
    return (folder / "args.yml").is_file() or (folder / "config.yml").is_file()


def _has_statistics(folder: Path) -> bool:
    """Of the one model that has the folder's name, as beside a checkpoint."""
    return (folder / "vecnormalize.pkl").is_file() and folder.with_name(f"{folder.name}.zip").is_file()


def read_settings(folder: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """
    Both files of a run's settings; the zoo's reader does not name a broken one.

    :param folder: the folder of the settings, None if there is none
    :return: the arguments of the training and its hyperparameters, empty where there is no file
    :raises AgentError: if a file can't be read
    """
    return ({}, {}) if folder is None else (_read(folder / "args.yml"), _read(folder / "config.yml"))


def _read(path: Path) -> dict[str, Any]:
    import yaml

    if not path.is_file():
        return {}
    try:
        with path.open() as file:
            content = yaml.load(file, Loader=yaml.UnsafeLoader)  # the zoo writes an OrderedDict
    except Exception as error:  # whatever the file names may raise anything
        raise AgentError(f"{path} could not be read: {error}") from error
    if not isinstance(content, dict):
        raise AgentError(f"{path} holds no settings: it is empty, or was not written to its end")
    return content
