"""Where a command saves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def output_path(output: str | None, kind: str, env_id: str, ending: str = "", suffixes: Sequence[str] = ()) -> Path:
    """
    :param output: what ``--output`` says, None if it says nothing: a path, or a folder, which exists or ends in a slash
    :param kind: ``KIND-ENV`` and the ending are the name where ``--output`` says none
    :param env_id: the environment
    :param ending: the ending of that name
    :param suffixes: endings that are taken off the path, since each file gets its own
    :return: the path
    """
    name = f"{kind}-{env_id.replace('/', '-').replace(':', '-')}{ending}"
    if output is None:
        return Path(name)
    path = Path(output)
    if path.is_dir() or output.endswith(("/", os.sep)):
        return path / name
    return path.with_suffix("") if path.suffix.lower() in suffixes else path
