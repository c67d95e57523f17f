"""PAVE for Stable-Baselines3: smooth controllers by steadying the critic's action-gradient field."""

__version__ = "0.1.0"
