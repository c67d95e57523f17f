"""Checkpoints of a training: what lies in them, which are there, which are whole."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sb3_pave.experiments.files import bring_to_disk, last_byte, read_json, write_json

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

TRAINING_FILE, BUFFER_FILE, STATISTICS_FILE = "training.json", "replay_buffer.pkl", "vecnormalize.pkl"

_PREFIX = "checkpoint-"


def save_checkpoint(model: BaseAlgorithm, folder: Path, name: str, training: Mapping[str, Any]) -> Path:
    """
    Save ``{folder}/checkpoint-N``, in the layout that the zoo's ``-i`` takes, and remove the ones before. Whatever happens
    meanwhile, a whole one is on the disk.

    :param model: the agent, after ``N`` steps
    :param folder: where to
    :param name: of its environment, as the zoo names files after it
    :param training: what :class:`sb3_pave.experiments.callback.RunCallback` goes on with
    :return: the checkpoint
    """
    target, unfinished = folder / f"{_PREFIX}{model.num_timesteps}", folder / f"{_PREFIX}unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / name).mkdir(parents=True)
    model.save(unfinished / f"{name}.zip")
    if getattr(model, "replay_buffer", None) is not None:
        model.save_replay_buffer(unfinished / BUFFER_FILE)  # type: ignore[attr-defined]
    normalization = model.get_vec_normalize_env()
    if normalization is not None:
        normalization.save(str(unfinished / name / STATISTICS_FILE))
    write_json(unfinished / TRAINING_FILE, training)
    bring_to_disk(unfinished)
    unfinished.rename(target)
    for other in checkpoints(folder):
        if other != target:
            shutil.rmtree(other)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """
    :param folder: where they were saved
    :return: the finished ones, the newest last
    """
    found = [path for path in folder.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]
    return sorted(found, key=steps_of)


def steps_of(checkpoint: Path) -> int:
    """
    :param checkpoint: a checkpoint
    :return: its number of steps
    """
    return int(checkpoint.name.removeprefix(_PREFIX))


def is_whole(checkpoint: Path) -> bool:
    """
    Whether its files end where they should: a disk that has lost its power, or was full, may have cut them short.

    :param checkpoint: a checkpoint
    """
    try:
        read_json(checkpoint / TRAINING_FILE)
        (model,) = checkpoint.glob("*.zip")
        with zipfile.ZipFile(model) as archive:
            intact = archive.testzip() is None
        return intact and all(last_byte(path) == pickle.STOP for path in checkpoint.rglob("*.pkl"))
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
