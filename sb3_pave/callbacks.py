"""Callbacks for ``learn()``; also what a zoo YAML names: ``callback: sb3_pave.callbacks.SmoothnessEvalCallback``."""

from sb3_pave.evaluation.callback import SmoothnessEvalCallback

__all__ = ["SmoothnessEvalCallback"]
