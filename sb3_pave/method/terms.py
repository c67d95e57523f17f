"""What PAVE adds to the critic's loss in one update."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch as th
from torch import nn

from sb3_pave.method.field import gradient_field
from sb3_pave.method.losses import pave_losses, signals, weighted_sum
from sb3_pave.method.points import FieldInputs


class Terms(NamedTuple):
    """
    The three terms of one update, ready to be evaluated: everything random is drawn.

    :param inputs: where the field is asked for
    :param coefs: ``(λ1, λ2, λ3)``, numbers or scalar tensors
    :param delta: ``δ``, likewise
    :param has_successor: of the transitions with a field, see ``pave_losses``
    """

    inputs: FieldInputs
    coefs: Sequence[Any]
    delta: Any
    has_successor: th.Tensor | None = None


def evaluate_terms(critic: nn.Module, terms: Terms) -> tuple[th.Tensor, dict[str, th.Tensor]]:
    """
    The definition of ``λ1 L_MPR + λ2 L_VFC + λ3 L_Curv``, with its graph, and what the log shows of it.

    :param critic: see ``gradient_field``
    :param terms: the terms
    """
    field = gradient_field(critic, terms.inputs)
    losses = pave_losses(field, terms.delta, terms.has_successor)
    return weighted_sum(losses, terms.coefs), signals(field, losses)
