from sb3_pave.algorithms.sac import PAVE_SAC
from sb3_pave.algorithms.td3 import PAVE_TD3

__all__ = ["PAVE_SAC", "PAVE_TD3"]
