"""What is refused, and what is warned of, before or instead of a NaN an hour later."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import nn

from sb3_pave.fast.update_log import UpdateLog
from sb3_pave.method.perturbation import is_perturbable

_PIECEWISE_LINEAR = (nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.PReLU, nn.RReLU, nn.Hardtanh, nn.Threshold)


def check_hyperparameters(model: Any) -> None:
    """
    :param model: a PAVE agent, perhaps without networks yet
    :raises ValueError: if one of PAVE's hyperparameters has no meaning, or MPR no observation to perturb
    """
    for name in ("mpr_coef", "vfc_coef", "curv_coef", "mpr_sigma", "curv_delta"):
        value = getattr(model, name)
        if isinstance(value, str):
            raise ValueError(f"{name} must be a number, not the text {value!r} (in YAML, write 1.0e-2 rather than 1e-2).")
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"{name} must be finite and not negative, not {value}. A weight of 0 switches its term off.")
    if not isinstance(model.compile, bool):
        raise ValueError(f"compile must be True or False, not {model.compile!r}.")
    if not isinstance(model.cuda_graph, bool) and model.cuda_graph != "auto":
        raise ValueError(f'cuda_graph must be True, False or "auto", not {model.cuda_graph!r}.')
    interval = model.pave_interval
    if isinstance(interval, bool) or not isinstance(interval, (int, np.integer)) or interval < 1:
        raise ValueError(f"pave_interval must be a positive number of updates, not {interval!r}. 1 means every update.")
    rows = model.pave_batch_size
    if rows is not None and (isinstance(rows, bool) or not isinstance(rows, (int, np.integer)) or rows < 1):
        raise ValueError(f"pave_batch_size must be a positive number of transitions, or None for all, not {rows!r}.")
    if model.mpr_coef > 0 and not is_perturbable(model.observation_space):
        raise ValueError(
            f"MPR adds noise to the observations, but {model.observation_space} has no continuous entry. Set mpr_coef=0 "
            "(VFC and Curv work with discrete observations)."
        )


def warn_of_flat_fields(model: Any) -> None:
    """
    Warn where Curv can't do its work.

    :param model: a PAVE agent
    """
    if model.curv_coef == 0 and (model.mpr_coef > 0 or model.vfc_coef > 0):
        warnings.warn(
            "curv_coef=0 while MPR or VFC is on: they flatten Q in the action, and without curvature preservation the "
            "paper measured less smooth policies than without PAVE. Use curv_coef=0.01 or more.",
            stacklevel=4,
        )
    networks = getattr(getattr(model, "critic", None), "q_networks", [])
    flat = {type(m).__name__ for network in networks for m in network.modules() if isinstance(m, _PIECEWISE_LINEAR)}
    if model.curv_coef > 0 and flat:
        warnings.warn(
            f"The critic's activation ({', '.join(sorted(flat))}) is piecewise linear: its second derivative is zero, so "
            "that curv_coef has no effect. Leave activation_fn out of policy_kwargs (PAVE then uses SiLU), or pass a "
            "smooth one.",
            stacklevel=4,
        )


def check_finite(values: dict[str, list[float]], n_updates: int) -> None:
    """
    :param values: of each logged tag, one per gradient step
    :param n_updates: the number of the last one
    :raises ValueError: naming the first update at which a PAVE term was not finite
    """
    all_finite = {tag: list(map(math.isfinite, per_update)) for tag, per_update in values.items()}
    broken = {tag: finite.index(False) for tag, finite in all_finite.items() if not all(finite)}
    terms = [tag for tag in ("mpr_loss", "vfc_loss", "curv_loss") if tag in broken]
    if not terms:
        return
    term = min(terms, key=lambda tag: broken[tag])
    # Not every update may have the terms
    per_value = max(map(len, values.values())) / len(values[term])
    update = round(n_updates - (len(values[term]) - broken[term] - 1) * per_value)
    if broken.get("td_loss", len(values[term])) < broken[term]:
        cause = "the TD loss was not finite before it: look for NaN or huge values in rewards and observations"
    else:
        cause = (
            "the critic diverges: lower the learning rate or the weight of the term, and look for NaN or huge values in "
            "observations and rewards (VecNormalize scales both)"
        )
    raise ValueError(f"PAVE's {term} is {values[term][broken[term]]} at update {update}; probably {cause}.")


@contextmanager
def naming_what_is_not_finite(log: UpdateLog, n_updates: int) -> Iterator[None]:
    """
    Let ``check_finite`` speak before PyTorch's distributions, which refuse what is not finite without saying where from.

    :param log: of the updates in this context
    :param n_updates: the number of updates before them
    """
    try:
        yield
    except ValueError as error:
        values = log.read()
        try:
            check_finite(values, n_updates + max(map(len, values.values()), default=0))
        except ValueError as cause:
            raise cause from error
        raise


def refuse_parallel_training(callback: Any) -> None:
    """
    :param callback: what ``learn()`` was given
    :raises ValueError: if the zoo's ParallelTrainCallback is among the callbacks
    """
    children = (
        callback if isinstance(callback, list) else getattr(callback, "callbacks", [getattr(callback, "callback", None)])
    )
    if type(callback).__name__ == "ParallelTrainCallback":
        raise ValueError(
            "RL Zoo's ParallelTrainCallback trains a plain SAC or TQC in its thread, without PAVE. Remove the callback."
        )
    for child in children:
        if child is not None:
            refuse_parallel_training(child)
