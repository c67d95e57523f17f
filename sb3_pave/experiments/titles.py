"""What the tables of a report, and the pictures that belong to them, are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sb3_pave.evaluation.intervals import FEWEST_RUNS


def task_title(task: Mapping[str, Any]) -> str:
    """
    :param task: an entry of a report's ``tasks``
    :return: what it is called: ``Pendulum-v1, 40 000 steps``
    """
    steps = f"{task['steps']:,}".replace(",", " ")
    return f"{task['environment']}, {steps} steps"


def spread_name(task: Mapping[str, Any]) -> str:
    """
    :param task: an entry of a report's ``tasks``
    :return: what stands beside its interquartile means over runs; empty where each method has a single run
    """
    numbers = {value["n_runs"] for one in task["methods"] for value in one["measures"].values()} - {0, 1}
    if not numbers:
        return ""
    if min(numbers) >= FEWEST_RUNS:
        return "its 95 % bootstrap interval"
    if max(numbers) < FEWEST_RUNS:
        return "the range of the runs"
    return f"its 95 % interval (below {FEWEST_RUNS} runs: their range)"


def over_tasks_title(report: Mapping[str, Any]) -> str:
    """
    :param report: a report
    :return: what its table over all tasks is called
    """
    return f"All tasks, relative to {report['reference']}"
