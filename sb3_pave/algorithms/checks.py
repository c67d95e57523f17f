"""What is refused, and what is warned of, before or instead of a NaN an hour later."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from numbers import Real
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.callbacks import CallbackList, EventCallback
from torch import nn

from sb3_pave.algorithms.diagnostics import STEEP
from sb3_pave.fast.update_log import UpdateLog
from sb3_pave.method.perturbation import is_perturbable, normalised_space
from sb3_pave.user_warning import warn_user

_PIECEWISE_LINEAR = (nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.PReLU, nn.RReLU, nn.Hardtanh, nn.Threshold)


class UnsupportedActionSpace(AssertionError, ValueError):
    """SB3 raises an AssertionError where it does not support an action space."""


def check_action_space(space: Any) -> None:
    """
    :param space: the action space
    :raises UnsupportedActionSpace: if its actions are not continuous
    """
    if not isinstance(space, spaces.Box):
        raise UnsupportedActionSpace(
            f"PAVE steadies the gradient of Q with respect to a continuous action, but the action space is {space}. Use an "
            "environment with a Box action space, or an algorithm for discrete actions (DQN, PPO)."
        )
    if space.dtype.kind != "f":
        raise UnsupportedActionSpace(
            f"PAVE needs a Box action space of floating-point numbers, but this one is of {space.dtype}: {space}. Scaled to "
            "[-1, 1], such actions would be stored as -1, 0 and 1. Give the environment a float32 Box and round in its step()."
        )


def plain_number(name: str, value: Any) -> float:
    """
    :param name: of the argument
    :param value: a number, as configurations have it: of Python, NumPy (also an array of no dimension) or PyTorch
    :return: Python's float, so that saved agents hold nothing else
    :raises ValueError: if it is no number, not finite or negative
    """
    value = _item(value)
    if isinstance(value, str):
        raise ValueError(f"{name} must be a number, not the text {value!r} (in YAML, write 1.0e-2 rather than 1e-2).")
    if callable(value):
        raise ValueError(f"{name} must be a number, not {value!r}: it takes no schedule. A callback may change it in place.")
    hint = " A weight of 0 switches its term off." if name.endswith("_coef") else ""
    if isinstance(value, bool) or not isinstance(value, (Real, Decimal)):
        raise ValueError(f"{name} must be a number, not {value!r}.{hint}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{name} must be finite and not negative, not {value}.{hint}")
    return number


def plain_flag(name: str, value: Any, choices: str = "True or False") -> bool:
    """
    :param name: of the argument
    :param value: Python's or NumPy's True or False
    :param choices: what the argument may be, for the message
    :raises ValueError: if it is neither
    """
    flag = _item(value)
    if not isinstance(flag, bool):
        raise ValueError(f"{name} must be {choices}, not {value!r}.")
    return flag


def plain_count(name: str, value: Any, of: str) -> int:
    """
    :param name: of the argument
    :param value: a positive whole number
    :param of: what it counts, for the message
    :raises ValueError: if it is none
    """
    count = _item(value)
    is_number = isinstance(count, (Real, Decimal)) and not isinstance(count, bool)
    if not is_number or not math.isfinite(count) or count != int(count) or count < 1:
        raise ValueError(f"{name} must be a positive whole number of {of}, not {value!r}.")
    return int(count)


def _item(value: Any) -> Any:
    """What scalars of NumPy and PyTorch hold, arrays of no dimension included."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def check_hyperparameters(model: Any) -> None:
    """
    Check PAVE's hyperparameters, and make plain Python numbers of them.

    :param model: a PAVE agent, perhaps without networks yet
    :raises ValueError: if one of them has no meaning
    """
    for name in ("mpr_coef", "vfc_coef", "curv_coef", "mpr_sigma", "curv_delta"):
        setattr(model, name, plain_number(name, getattr(model, name)))
    model.scale_free = plain_flag("scale_free", model.scale_free)
    model.compile = plain_flag("compile", model.compile)
    if not isinstance(model.cuda_graph, str) or model.cuda_graph != "auto":
        model.cuda_graph = plain_flag("cuda_graph", model.cuda_graph, 'True, False or "auto"')
    model.pave_interval = plain_count("pave_interval", model.pave_interval, "updates (1 means every update)")
    if model.pave_batch_size is not None:
        model.pave_batch_size = plain_count("pave_batch_size", model.pave_batch_size, "transitions, or None for all")


def noise_is_idle(model: Any, term: str, coef: str, was_idle: bool, others: str) -> bool:
    """
    Whether a term that adds noise to observations has a weight but none to perturb, with a warning where it has just come to
    that.

    :param model: the agent; without an environment yet, it is not known what VecNormalize will make of its observations
    :param term: what the term is called
    :param coef: the name of its weight
    :param was_idle: what this returned before
    :param others: which terms work as ever, for the warning
    """
    if getattr(model, coef) == 0 or model.env is None:
        return False
    idle = not is_perturbable(normalised_space(model.observation_space, model._vec_normalize_env))
    if idle and not was_idle:
        warn_user(
            f"{term} adds noise to continuous observations, and {model.observation_space} has none that the networks see: "
            f"{term} contributes nothing, as with {coef}=0. {others} as ever. (Numbers of type integer become continuous "
            "under VecNormalize.)",
        )
    return idle


def warn_of_papers_delta(model: Any) -> None:
    """
    Warn where Curv asks for what no critic can have: the published δ, say, in ranges of the return.

    :param model: a PAVE agent
    """
    if model.scale_free and model.curv_coef > 0 and model.curv_delta > STEEP:
        warn_user(
            f"curv_delta={model.curv_delta:g} counts in ranges of the return here: a critic that bends so much has no room "
            "to predict returns, and little is learned. The default is 0.005; published weights, whose curv_delta is 1, need "
            "scale_free=False.",
        )


def warn_of_single_transitions(model: Any) -> None:
    """
    Warn where there are no batches that units could be measured in.

    :param model: a PAVE agent
    """
    if model.scale_free and model._has_terms() and model.batch_size == 1:
        warn_user(
            "batch_size=1: a single transition has no spread and no range, which scale-free weights count in, so that MPR and "
            "Curv do nothing. Raise batch_size, or use scale_free=False.",
        )


def warn_of_part_of_batch(model: Any) -> None:
    """
    Warn where the older of two ways to the same saving is taken.

    :param model: a PAVE agent
    """
    if model.pave_batch_size is not None:
        warn_user(
            "pave_batch_size is deprecated: pave_interval=4, the terms in every fourth update, saves more time than a quarter "
            "of each batch. pave_batch_size will go.",
            FutureWarning,
        )


def warn_of_flat_fields(model: Any) -> None:
    """
    Warn where Curv can't do its work.

    :param model: a PAVE agent
    """
    mpr_coef, vfc_coef, curv_coef = model._coefs()
    if curv_coef == 0 and (mpr_coef > 0 or vfc_coef > 0):
        warn_user(
            "curv_coef=0 while MPR or VFC is on: they flatten Q in the action, and without curvature preservation the "
            "paper measured less smooth policies than without PAVE. Leave curv_coef at its default, or raise it from there.",
        )
    networks = getattr(getattr(model, "critic", None), "q_networks", [])
    flat = {type(m).__name__ for network in networks for m in network.modules() if isinstance(m, _PIECEWISE_LINEAR)}
    if model.curv_coef > 0 and flat:
        warn_user(
            f"The critic's activation ({', '.join(sorted(flat))}) is piecewise linear: its second derivative is zero, so "
            "that curv_coef has no effect. Leave activation_fn out of policy_kwargs (PAVE then uses SiLU), or pass a "
            "smooth one.",
        )


def check_finite(values: dict[str, list[float]], n_updates: int, td_was_finite: bool = True) -> None:
    """
    :param values: of each logged tag, one per gradient step
    :param n_updates: the number of the last one
    :param td_was_finite: whether the TD loss was finite in the update before them
    :raises ValueError: naming the first update at which a PAVE term was not finite
    """
    all_finite = {tag: list(map(math.isfinite, per_update)) for tag, per_update in values.items()}
    broken = {tag: finite.index(False) for tag, finite in all_finite.items() if not all(finite)}
    terms = [tag for tag in ("mpr_loss", "vfc_loss", "curv_loss") if tag in broken]
    if not terms:
        return
    longest = max(map(len, values.values()))

    def first_update(tag: str) -> int:
        # Not every update may have the terms
        count = len(values[tag])
        return round(n_updates - (count - broken[tag] - 1) * longest / count)

    term = min(terms, key=lambda tag: broken[tag])
    update = first_update(term)
    if not td_was_finite or ("td_loss" in broken and first_update("td_loss") < update):
        cause = "the TD loss was not finite before it: look for NaN or huge values in rewards and observations"
    else:
        cause = (
            "the critic diverges: lower the learning rate or the weight of the term, and look for NaN or huge values in "
            "observations and rewards (VecNormalize scales both)"
        )
    raise ValueError(f"PAVE's {term} is {values[term][broken[term]]} at update {update}; probably {cause}.")


@contextmanager
def naming_what_is_not_finite(log: UpdateLog, n_updates: int, td_was_finite: bool) -> Iterator[None]:
    """
    Let ``check_finite`` speak before PyTorch's distributions, which refuse what is not finite without saying where from.

    :param log: of the updates in this context
    :param n_updates: the number of updates before them
    :param td_was_finite: see ``check_finite``
    """
    try:
        yield
    except ValueError as error:
        values = log.read()
        try:
            check_finite(values, n_updates + max(map(len, values.values()), default=0), td_was_finite)
        except ValueError as cause:
            raise cause from error
        raise


def refuse_parallel_training(callback: Any) -> None:
    """
    :param callback: what ``learn()`` was given
    :raises ValueError: if the zoo's ParallelTrainCallback is among the callbacks
    """
    if isinstance(callback, CallbackList):
        children: list[Any] = list(callback.callbacks)
    elif isinstance(callback, EventCallback):
        # EvalCallback has two more
        names = ("callback", "callback_on_new_best", "callback_after_eval")
        children = [getattr(callback, name, None) for name in names]
    else:
        # Whatever else has attributes of those names is the user's
        children = list(callback) if isinstance(callback, (list, tuple)) else []
    if type(callback).__name__ == "ParallelTrainCallback":
        raise ValueError(
            "RL Zoo's ParallelTrainCallback trains a plain SAC or TQC in its thread, without PAVE. Remove the callback."
        )
    for child in children:
        if child is not None:
            refuse_parallel_training(child)
