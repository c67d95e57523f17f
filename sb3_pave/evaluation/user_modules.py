"""Modules of the user that could not be imported."""

from __future__ import annotations

import importlib
import traceback
from pathlib import Path

#: What a command adds to an error of an environment that nobody has registered
HINT_OF_PACKAGES = " (--gym-packages names the modules that register environments)"


def why_not_imported(error: Exception) -> str:
    """
    :param error: what ``importlib.import_module`` has raised for a module of the user
    :return: what it says; where the module was looked for, or the line of the user's that has raised
    """
    if isinstance(error, ModuleNotFoundError):
        return f"{error}; it is neither installed nor in the current folder"
    if isinstance(error, ImportError):
        return str(error)
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    return f"{type(error).__name__}: {error}{_where(error)}"


def _where(error: Exception) -> str:
    """The last line in the folder of the module, not one of a library that it calls."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    imports = [i for i, frame in enumerate(frames) if frame.filename == importlib.__file__]
    theirs = frames[imports[0] + 1 :] if imports else []
    if not theirs:
        return ""
    folder = Path(theirs[0].filename).parent
    last = [frame for frame in theirs if Path(frame.filename).is_relative_to(folder)][-1]
    return f" ({last.filename}, line {last.lineno})"
