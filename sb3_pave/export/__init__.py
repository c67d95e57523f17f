"""
A trained policy as an ONNX graph, from raw observation to environment-scale action.

The graph (:mod:`.graph`, with :mod:`.normalization`) becomes a file (:mod:`.onnx_file`) if it acts as ``model.predict`` does
(:mod:`.comparison`) where the policy runs (:mod:`.observations`).
"""

from sb3_pave.export.comparison import TOLERANCE, Comparison
from sb3_pave.export.errors import ExportError
from sb3_pave.export.exporting import Exported, export_onnx

__all__ = ["TOLERANCE", "Comparison", "ExportError", "Exported", "export_onnx"]
