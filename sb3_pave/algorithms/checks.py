"""What is refused of an agent, and what is warned of."""

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.callbacks import CallbackList, EventCallback
from torch import nn

from sb3_pave.algorithms.diagnostics import STEEP
from sb3_pave.algorithms.plain_values import plain_count, plain_flag, plain_number
from sb3_pave.algorithms.units import PAPER
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


def check_hyperparameters(model: Any) -> None:
    """
    Check PAVE's hyperparameters, and make plain Python numbers of them.

    :param model: a PAVE agent, perhaps without networks yet
    :raises ValueError: if one of them has no meaning
    """
    for name in PAPER:
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
    coefs = model._coefs()
    if coefs["curv"] == 0 and (coefs["mpr"] > 0 or coefs["vfc"] > 0):
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
