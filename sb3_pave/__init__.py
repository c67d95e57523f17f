"""PAVE for Stable-Baselines3: smooth controllers by steadying the critic's action-gradient field."""

from typing import TYPE_CHECKING, Any

from sb3_pave import algorithms
from sb3_pave.algorithms import PAVE_DDPG, PAVE_SAC, PAVE_TD3
from sb3_pave.algorithms.factory import pave

if TYPE_CHECKING:
    from sb3_pave.algorithms import PAVE_TQC as PAVE_TQC
    from sb3_pave.algorithms import PAVE_CrossQ as PAVE_CrossQ

__version__ = "0.1.0"

__all__ = ["PAVE_DDPG", "PAVE_SAC", "PAVE_TD3", "__version__", "pave"]


def __getattr__(name: str) -> Any:
    # PAVE_CrossQ and PAVE_TQC are imported when they are asked for: sb3-contrib is optional
    if name.startswith("PAVE_"):
        return getattr(algorithms, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *(name for name in dir(algorithms) if name.startswith("PAVE_"))})
