"""The two meanings of PAVE's weights, and what they are where the user does not say."""

import json
import zipfile
from contextlib import ExitStack
from typing import Any

from stable_baselines3.common.save_util import json_to_data, open_path

#: In the paper's units, which are the task's: where the authors start their search
PAPER = {"mpr_coef": 0.1, "vfc_coef": 0.1, "curv_coef": 0.01, "mpr_sigma": 0.01, "curv_delta": 1.0}
#: In units of the replayed data, see ``Scales``: one set for every task
SCALE_FREE = {"mpr_coef": 0.5, "vfc_coef": 0.005, "curv_coef": 0.03, "mpr_sigma": 0.01, "curv_delta": 0.005}


def default_weights(scale_free: Any) -> dict[str, float]:
    """
    :param scale_free: the units
    """
    return SCALE_FREE if scale_free else PAPER


def settle_weights(agent: Any) -> None:
    """
    Put the defaults of its units where an agent has None.

    :param agent: a PAVE agent, whose ``scale_free`` is a flag
    """
    for name, default in default_weights(agent.scale_free).items():
        if getattr(agent, name) is None:
            setattr(agent, name, default)


def stored_data(path: Any) -> dict[str, Any]:
    """
    :param path: of a saved agent, or a file-like object, which is left where it is
    :return: its attributes as JSON has them: what is no number, text, list or None is described
    """
    with ExitStack() as leaving:
        if hasattr(path, "tell"):
            leaving.callback(path.seek, path.tell())
        file = open_path(path, "r", verbose=0, suffix="zip")
        if file is not path:
            leaving.enter_context(file)
        archive = leaving.enter_context(zipfile.ZipFile(file))
        return json.loads(archive.read("data")) if "data" in archive.namelist() else {}


def stored_value(data: dict[str, Any], name: str, custom_objects: dict[str, Any] | None = None) -> Any:
    """
    :param data: see :func:`stored_data`
    :param name: of an attribute
    :param custom_objects: what ``load()`` takes in place of stored attributes
    :return: the attribute as ``load()`` restores it, None if there is none
    """
    found = {key: value for key, value in data.items() if key == name}
    return json_to_data(json.dumps(found), custom_objects).get(name)


def weights_to_load(stored: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """
    What ``load()`` is to be given beside its arguments, so that weights keep their meaning.

    A zip from before there were two meanings has the paper's. Where the user changes the meaning, weights that are not given
    become the other's defaults.

    :param stored: the data of the zip
    :param given: the user's keyword arguments, and what else replaces stored data
    """
    if "mpr_coef" not in stored:
        return {}  # a plain agent's
    before = stored.get("scale_free", False)
    now = given.get("scale_free", before)
    if now != before:
        return {name: weight for name, weight in default_weights(now).items() if name not in given}
    return {} if "scale_free" in stored else {"scale_free": before}
