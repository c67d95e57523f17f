"""What the log says about the field beyond the raw terms, and the one warning when the terms drown the task."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from stable_baselines3.common.preprocessing import get_action_dim

from sb3_pave.method.losses import TAGS
from sb3_pave.user_warning import warn_user

_RATE = 0.01  # of the moving average of the field's size, per update
_WINDOW = 2000  # updates over which the terms have to exceed the TD loss
_TOO_MUCH = 10.0  # times the TD loss
STEEP = 0.3  # curvature per action dimension, in ranges of the return, that leaves the critic no room for anything else


# By whether the weights are scale-free
_ADVICE = {
    False: "In the paper's units the weights have to fit the scale of the rewards: lower {term}_coef (for Curv curv_delta, "
    "too), or use scale_free=True, whose weights do not depend on it.",
    True: "Lower {term}_coef.",
}


class Diagnostics:
    """
    Follows the logged values of the updates of one agent, on the host: nothing of it costs the device anything.
    """

    def __init__(self) -> None:
        #: ``G²``, moving average of ``E‖∇_a Q‖² / d_a``, mean over the critics
        self.field_square: float | None = None
        #: Whether the TD loss was finite in the last update
        self.td_is_finite = True
        self._n_watched = 0
        self._averages: dict[str, float] = {}
        self._n_steep = 0
        self._warned = False

    def turns(self, values: dict[str, list[float]], n_critics: int) -> dict[str, list[float]]:
        """
        The field's change relative to its size: ``ρ_N = L_MPR / G²`` under noise and ``ρ_V = L_VFC / G²`` in one step.

        :param values: what the updates logged, one value an update
        :param n_critics: over which the losses are sums
        :return: ``field_turn_noise`` and ``field_turn_step``, where the terms are on
        """
        found: dict[str, list[float]] = {}
        for i, size in enumerate(values.get("action_grad_rms", [])):
            square = size**2
            self.field_square = square if not self.field_square else self.field_square + _RATE * (square - self.field_square)
            for tag, loss in (("field_turn_noise", "mpr_loss"), ("field_turn_step", "vfc_loss")):
                if loss in values and self.field_square > 0:
                    found.setdefault(tag, []).append(values[loss][i] / n_critics / self.field_square)
        return found

    def watch_agent(self, model: Any, values: dict[str, list[float]]) -> None:
        """
        Warn, once, where the terms forbid the task.

        :param model: a PAVE agent
        :param values: what its updates logged, one value an update
        """
        if "td_loss" in values:
            self.td_is_finite = math.isfinite(values["td_loss"][-1])
        coefs = zip(TAGS, model._coefs().values(), strict=True)
        weights = {tag: [coef] * len(values.get(tag, ())) for tag, coef in coefs}
        scales, action_dim = values.get("return_scale", []), get_action_dim(model.action_space)
        if model.scale_free:
            weights["curv_loss"] = [model.curv_coef / action_dim * scale for scale in scales]
        elif model.curv_coef > 0:
            asked_for = [model.curv_delta / action_dim / scale if scale > 0 else 0.0 for scale in scales]
            self.watch_curvature(asked_for, _ADVICE[False])
        if shares := values.get("huber_share"):
            # Terms that are off have no weights
            pairs = {name: zip(per_update, shares, strict=False) for name, per_update in weights.items()}
            weights = {name: [weight * share for weight, share in pair] for name, pair in pairs.items()}
        self.watch(values, weights, _ADVICE[bool(model.scale_free)])

    def watch(self, values: dict[str, list[float]], coefs: Mapping[str, Sequence[float]], advice: str) -> None:
        """
        Warn, once, if a weighted term exceeds the TD loss many times, on average over a window of updates.

        :param values: what the updates logged, one value an update
        :param coefs: with which each loss weighs, by its tag, one number an update
        :param advice: what to do about the term ``{term}``
        """
        if self._warned or "td_loss" not in values:
            return
        followed = {"td_loss": values["td_loss"]}
        for tag, weights in coefs.items():
            if tag in values:
                followed[tag] = [weight * loss for weight, loss in zip(weights, values[tag], strict=True)]
        for tag, per_update in followed.items():
            for value in per_update:
                average = self._averages.get(tag, value)
                self._averages[tag] = average + (value - average) / (_WINDOW / 4)
        self._n_watched += len(values["td_loss"])
        if self._n_watched < _WINDOW:
            return
        limit = _TOO_MUCH * self._averages["td_loss"]
        drowning = [tag for tag in coefs if tag in self._averages and self._averages[tag] > limit]
        if drowning:
            term, factor = drowning[0].removesuffix("_loss"), self._averages[drowning[0]] / self._averages["td_loss"]
            self._warn(
                f"PAVE's weighted {term} term has been {factor:.0f} times the TD loss over the last {_WINDOW} updates: the "
                f"critic learns to please it rather than to predict returns. {advice.format(term=term)}"
            )

    def watch_curvature(self, asked_for: Sequence[float], advice: str) -> None:
        """
        Warn, once, if Curv asks for a curvature that Q can't have, over a whole window of updates: it is soon satisfied, by a
        critic that knows nothing else, so that its loss tells nothing.

        :param asked_for: ``δ / (d_a S)`` of each update: twice what a unit step in a dimension costs, in ranges of the return
        :param advice: what to do about the term ``{term}``
        """
        for steepness in asked_for:
            self._n_steep = self._n_steep + 1 if steepness > STEEP else 0
        if self._n_steep >= _WINDOW and not self._warned:
            self._warn(
                f"PAVE's curv term asks for a curvature of {asked_for[-1]:.2g} times the range of the returns, per action "
                f"dimension, and did so over the last {_WINDOW} updates: a critic that bends so much has no room for what the "
                f"actions are worth. {advice.format(term='curv')}"
            )

    def _warn(self, text: str) -> None:
        self._warned = True
        warn_user(text)
