"""Methods that add terms to the actor's loss."""

from typing import ClassVar

import torch as th

from sb3_pave.baselines.mixin import ActorSideMethod
from sb3_pave.baselines.transitions import Transitions
from sb3_pave.fast.differentiated import parameters_of
from sb3_pave.fast.update_log import UpdateLog


class AdditiveMethod(ActorSideMethod):
    """The actor descends the host's loss and a weighted sum of terms. With all weights at 0 it is the host, bit for bit."""

    # The terms' names; the weight of one is the argument {name}_coef
    terms: ClassVar[tuple[str, ...]]

    def _is_on(self) -> bool:
        return any(coef > 0 for coef in self._term_coefs().values())

    def _term_coefs(self) -> dict[str, float]:
        """The weight of each term."""
        return {name: getattr(self, f"{name}_coef") for name in self.terms}

    def _terms(self, batch: Transitions) -> dict[str, th.Tensor]:
        """
        The terms that have a weight, scalars.

        :param batch: the transitions
        """
        raise NotImplementedError

    def _trained(self, optimizer: th.optim.Optimizer) -> list[th.Tensor]:
        """
        What the terms train.

        :param optimizer: of the actor
        """
        return parameters_of(optimizer)

    def _join(self, optimizer: th.optim.Optimizer, batch: Transitions, log: UpdateLog) -> None:
        terms, coefs = self._terms(batch), self._term_coefs()
        log.add(**{f"{name}_loss": term for name, term in terms.items()})
        loss: th.Tensor = sum(coefs[name] * term for name, term in terms.items())  # type: ignore[assignment]
        # A frozen actor's terms are constants
        if (trained := self._trained(optimizer)) and loss.requires_grad:
            loss.backward(inputs=trained)
