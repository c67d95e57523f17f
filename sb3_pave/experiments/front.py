"""The outcome of a search: which trials none other beats, and which one to take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

PICKS = ("smoothest", "knee")

#: Without a constraint, the smoothest trial may lose this share of the best return's absolute value
SMOOTHEST_LOSS = 0.1

Trial = Mapping[str, Any]


def pareto_front(trials: Sequence[Trial]) -> list[Trial]:
    """
    :param trials: trials with ``return``, ``sm`` and ``feasible``
    :return: the feasible ones of which no feasible one has a higher return and a lower ``sm`` (one of them may be the same),
        the smoothest first; of equals, the first
    """
    front: list[Trial] = []
    # From the smoothest on, each has to beat the best return so far
    for trial in sorted(
        (one for one in trials if one["feasible"]), key=lambda one: (one["sm"], -one["return"], one["number"])
    ):
        if not front or trial["return"] > front[-1]["return"]:
            front.append(trial)
    return front


def pick(searched: Mapping[str, Any], how: str) -> Trial:
    """
    :param searched: a search, as :func:`sb3_pave.experiments.search_results.describe` has it
    :param how: ``smoothest``: the lowest ``sm`` among the feasible ones; where there is no constraint, among those of the
        front that lose at most a tenth of the best return's absolute value. ``knee``: the point of the front that lies
        farthest beyond the straight line between its ends, return and ``sm`` both counted in parts of the front's range
    :return: the trial
    :raises ValueError: if none is feasible, or ``how`` is unknown
    """
    if how not in PICKS:
        raise ValueError(f"a trial is picked by {' or '.join(PICKS)}; got {how!r}")
    front = pareto_front(searched["trials"])
    if not front:
        raise ValueError("no trial of the search is feasible")
    if how == "smoothest":
        if searched["least_return"] is not None:
            return front[0]
        best = front[-1]["return"]
        return next(trial for trial in front if trial["return"] >= best - SMOOTHEST_LOSS * abs(best))
    first, last = front[0], front[-1]
    returns, sms = (last["return"] - first["return"] or 1.0), (last["sm"] - first["sm"] or 1.0)
    return max(front, key=lambda one: (one["return"] - first["return"]) / returns - (one["sm"] - first["sm"]) / sms)


def find_trial(trials: Sequence[Trial], number: int) -> Trial:
    """
    :param trials: trials of a search
    :param number: number of one
    :return: that one
    :raises ValueError: if there is none of that number with a result
    """
    if not trials:
        raise ValueError("no trial of the search has a result")
    found = next((trial for trial in trials if trial["number"] == number), None)
    if found is None:
        raise ValueError(
            f"there is no trial {number} with a result; there are {', '.join(str(one['number']) for one in trials)}"
        )
    return found
