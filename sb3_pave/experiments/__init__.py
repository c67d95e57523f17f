"""Grids of runs: environments × seeds × methods, from a specification to results, on one machine or many."""

from sb3_pave.experiments.given import SpecificationError
from sb3_pave.experiments.grid import GridError, Outcome, run_grid
from sb3_pave.experiments.results import load_result
from sb3_pave.experiments.runs import EvaluationSettings, Run
from sb3_pave.experiments.specification import Specification
from sb3_pave.experiments.status import RunState, RunStatus, grid_status

__all__ = [
    "EvaluationSettings",
    "GridError",
    "Outcome",
    "Run",
    "RunState",
    "RunStatus",
    "Specification",
    "SpecificationError",
    "grid_status",
    "load_result",
    "run_grid",
]
