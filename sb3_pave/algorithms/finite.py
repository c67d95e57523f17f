"""An error that names the term, the update and the likely cause, instead of a NaN an hour later."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from sb3_pave.fast.update_log import UpdateLog
from sb3_pave.method.losses import TAGS


def check_finite(values: dict[str, list[float]], n_updates: int, interval: int = 1, td_was_finite: bool = True) -> None:
    """
    :param values: of each logged tag: the TD loss of every update, PAVE's terms of those that have them
    :param n_updates: the number of the last update
    :param interval: the terms are in the updates whose number is a multiple of it
    :param td_was_finite: whether the TD loss was finite in the update before them
    :raises ValueError: naming the first update at which a PAVE term was not finite
    """
    all_finite = {tag: list(map(math.isfinite, per_update)) for tag, per_update in values.items()}
    broken = {tag: finite.index(False) for tag, finite in all_finite.items() if not all(finite)}
    terms = [tag for tag in TAGS if tag in broken]
    if not terms:
        return

    def first_update(tag: str, every: int) -> int:
        n_later = len(values[tag]) - 1 - broken[tag]
        return (n_updates // every - n_later) * every

    term = min(terms, key=lambda tag: broken[tag])
    update = first_update(term, interval)
    if not td_was_finite or ("td_loss" in broken and first_update("td_loss", 1) < update):
        cause = "the TD loss was not finite before it: look for NaN or huge values in rewards and observations"
    else:
        cause = (
            "the critic diverges: lower the learning rate or the weight of the term, and look for NaN or huge values in "
            "observations and rewards (VecNormalize scales both)"
        )
    raise ValueError(f"PAVE's {term} is {values[term][broken[term]]} at update {update}; probably {cause}.")


@contextmanager
def naming_what_is_not_finite(log: UpdateLog, n_updates: int, interval: int, td_was_finite: bool) -> Iterator[None]:
    """
    Let ``check_finite`` speak before PyTorch's distributions, which refuse what is not finite without saying where from.

    :param log: of the updates in this context
    :param n_updates: the number of updates before them
    :param interval: see ``check_finite``
    :param td_was_finite: see there
    """
    try:
        yield
    except ValueError as error:
        values = log.read()
        try:
            # Whole updates: of the one that failed, something else may have been noted
            n_done = n_updates + len(values.get("td_loss", ()))
            check_finite(values, n_done, interval, td_was_finite)
        except ValueError as cause:
            raise cause from error
        raise
