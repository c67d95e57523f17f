"""What the tables of a report, and the pictures that belong to them, are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def task_title(task: Mapping[str, Any]) -> str:
    """
    :param task: an entry of a report's ``tasks``
    :return: what it is called: ``Pendulum-v1, 40 000 steps``
    """
    steps = f"{task['steps']:,}".replace(",", " ")
    return f"{task['environment']}, {steps} steps"


def over_tasks_title(report: Mapping[str, Any]) -> str:
    """
    :param report: a report
    :return: what its table over all tasks is called
    """
    return f"All tasks, relative to {report['reference']}"
