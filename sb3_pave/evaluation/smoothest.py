"""The smoothest model of a training whose return is close to the best; which one that is may change with each new best."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Files = Mapping[str, bytes | None]


@dataclass(frozen=True)
class Candidate:
    """
    A model that is the smoothest, or may become it.

    :param mean_reward: its mean return
    :param score: its smoothness, lower is smoother
    :param files: content of its files by their names, None for those that it does not have
    """

    mean_reward: float
    score: float
    files: Files


class SmoothestModels:
    """
    A smoother model with a lower return may fall too far behind a new best, and one that was less smooth take its place. So
    all that no other one surpasses in both are kept, a few as a rule.

    :param share: how close to the best mean return that of the smoothest has to be: with 0.9, it may fall short by a tenth of
        the best's absolute value
    """

    def __init__(self, share: float):
        self.share = share
        self.candidates: list[Candidate] = []

    def offer(self, mean_reward: float, score: float, best: float, save: Callable[[], Files]) -> Candidate | None:
        """
        :param mean_reward: of a model
        :param score: its smoothness, lower is smoother
        :param best: the best mean return until now, this one included
        :param save: makes its files; called if the model is a candidate
        :return: the smoothest one that is close enough to the best; None if nothing is
        """
        least = best - (1.0 - self.share) * abs(best)
        if not np.isfinite(least):  # nothing is close to an infinite best
            return None
        self.candidates = [one for one in self.candidates if one.mean_reward >= least]
        # Written so that NaN is refused
        good_enough = mean_reward >= least and score < np.inf
        if good_enough and not any(one.mean_reward >= mean_reward and one.score <= score for one in self.candidates):
            self.candidates = [one for one in self.candidates if one.mean_reward > mean_reward or one.score < score]
            self.candidates.append(Candidate(mean_reward, score, save()))
        return min(self.candidates, key=lambda one: one.score, default=None)
