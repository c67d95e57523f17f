"""What a saved agent holds, without loading it."""

import json
import zipfile
from contextlib import ExitStack
from typing import Any

from stable_baselines3.common.save_util import json_to_data, open_path


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
