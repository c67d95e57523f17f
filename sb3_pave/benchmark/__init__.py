"""Time and memory of one gradient step: PAVE's ways of doing it against the plain host."""

from sb3_pave.benchmark.timing import DifferentLosses, Report, Timing, benchmark
from sb3_pave.benchmark.workload import (
    HOST,
    Variant,
    Workload,
    default_variants,
    host_class,
    make_model,
    rival_variants,
)

__all__ = [
    "HOST",
    "DifferentLosses",
    "Report",
    "Timing",
    "Variant",
    "Workload",
    "benchmark",
    "default_variants",
    "host_class",
    "make_model",
    "rival_variants",
]
