"""The hyperparameters of PAVE's rivals: the protocol of PAVE's files with weights of their own."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

import sb3_pave
from sb3_pave.zoo.algorithms import ZooRival
from sb3_pave.zoo.files import hyperparams_folder
from sb3_pave.zoo.search import PAVE_PARAMETERS

Entry = dict[str, Any]


def paper_protocol(host: str) -> dict[str, Entry]:
    """
    The paper's protocol for its seven environments without PAVE, for plain hosts and the rivals: SiLU, as in its baselines.

    :param host: the zoo's name of the host, td3 or sac
    :return: entries in the zoo's format, by environment
    """
    entries = _read(f"pave_{host}")
    return {env_id: _without_pave(entry) for env_id, entry in entries.items() if env_id != "default"}


def rival_weights(method: str, host: str, env_id: str) -> Entry:
    """
    The published weights of a method, or what it has by default.

    :param method: one of ``METHODS``
    :param host: the zoo's name of the host, td3 or sac
    :param env_id: the environment
    """
    weights = _read("rivals")[method][host]
    return {**weights["default"], **weights.get(env_id, {})}


def rival_entry(rival: ZooRival, file: Path, key: str, env_id: str) -> Entry:
    """
    The hyperparameters that a rival gets.

    :param rival: the algorithm
    :param file: where its host, or the host's PAVE class, has its hyperparameters
    :param key: the entry in that file
    :param env_id: the environment
    """
    entry = yaml.safe_load(file.read_text())[key]
    if not rival.with_pave and file == _path(f"pave_{rival.host}"):
        entry = paper_protocol(rival.host).get(key) or {name: entry[name] for name in entry if name not in PAVE_PARAMETERS}
    # The weights of another version of the environment, where that is what was found
    return {**entry, **rival_weights(rival.method, rival.host, env_id if key == "default" else key)}


@contextmanager
def rival_file(rival: ZooRival, file: Path, key: str, env_id: str) -> Iterator[Path]:
    """
    A file for the zoo to read in this context, with the one entry that a rival gets.

    :param rival: the algorithm
    :param file: where its host, or the host's PAVE class, has its hyperparameters
    :param key: the entry in that file
    :param env_id: the environment
    """
    print(f"{rival.name}: hyperparameters of {file} with weights of {_path('rivals')}")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / f"{rival.name}.yml"
        made.write_text(yaml.safe_dump({key: rival_entry(rival, file, key, env_id)}))
        yield made


def _without_pave(entry: Entry) -> Entry:
    plain = {name: value for name, value in entry.items() if name not in PAVE_PARAMETERS}
    # PAVE's classes supply the activation themselves
    plain["policy_kwargs"] = plain["policy_kwargs"].removesuffix(")") + ", activation_fn=nn.SiLU)"
    return plain


def _path(name: str) -> Path:
    return hyperparams_folder(sb3_pave.__file__) / f"{name}.yml"


def _read(name: str) -> dict[str, Any]:
    return yaml.safe_load(_path(name).read_text())
