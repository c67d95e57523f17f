"""PAVE for Stable-Baselines3: smooth controllers by steadying the critic's action-gradient field."""

from sb3_pave.algorithms import PAVE_SAC, PAVE_TD3

__version__ = "0.1.0"

__all__ = ["PAVE_SAC", "PAVE_TD3", "__version__"]
