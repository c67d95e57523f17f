"""Warnings at the line of the user's program that they are about."""

import os
import sys
import warnings
from pathlib import Path

# What stands between that line and us
_LIBRARIES = ("sb3_pave", "stable_baselines3", "sb3_contrib", "rl_zoo3", "torch")


def warn_user(text: str, category: type[Warning] = UserWarning) -> None:
    """
    Warn at the line, outside of this package, SB3's and PyTorch, that the call came from.

    :param text: what to say
    :param category: of the warning
    """
    imported = (getattr(sys.modules.get(name), "__file__", None) for name in _LIBRARIES)
    libraries = tuple(f"{Path(file).parent}{os.sep}" for file in imported if file)
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(libraries):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, category, stacklevel=level)
