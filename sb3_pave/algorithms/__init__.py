"""The PAVE algorithms. Those of sb3-contrib's hosts are imported when they are asked for: it is optional."""

import importlib
from typing import TYPE_CHECKING, Any

from sb3_pave.algorithms.ddpg import PAVE_DDPG
from sb3_pave.algorithms.sac import PAVE_SAC
from sb3_pave.algorithms.td3 import PAVE_TD3

if TYPE_CHECKING:
    from sb3_pave.algorithms.crossq import PAVE_CrossQ as PAVE_CrossQ
    from sb3_pave.algorithms.tqc import PAVE_TQC as PAVE_TQC

# Without those of sb3-contrib, so that a star import works without it
__all__ = ["PAVE_DDPG", "PAVE_SAC", "PAVE_TD3"]

_MODULES_OF_CONTRIB = {"PAVE_CrossQ": "sb3_pave.algorithms.crossq", "PAVE_TQC": "sb3_pave.algorithms.tqc"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES_OF_CONTRIB:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_MODULES_OF_CONTRIB[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "sb3_contrib":
            raise
        raise ImportError(f'{name} needs sb3-contrib: pip install "sb3-pave[contrib]"', name="sb3_contrib") from error


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES_OF_CONTRIB])
