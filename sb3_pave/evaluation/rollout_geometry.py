"""Geometry of a critic, and of its actor, along the states that its policy visits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_pave.evaluation.actor_jacobian import actor_jacobian_norm
from sb3_pave.evaluation.derivatives import CHUNK_SIZE
from sb3_pave.evaluation.geometry import CriticGeometry, critic_geometry
from sb3_pave.evaluation.networks import CriticChoice, check_choice, critic_of, evaluation_mode, is_scalable
from sb3_pave.evaluation.observations import Observations, batch_size, chunks, rows
from sb3_pave.evaluation.rollout import Rollout, stack_actions, stack_observations
from sb3_pave.evaluation.smoothness import is_saturated
from sb3_pave.evaluation.turn import FieldTurn, field_turn


@dataclass(frozen=True)
class RolloutGeometry:
    r"""
    Geometry of a critic along the episodes of a policy, ``n`` states in all.

    :param critic: the critic at the visited states and the actions taken there; None where it can't be measured
    :param actor_jacobian_norm: :math:`\|\nabla_s \pi\|_2`, shape ``(n,)``; None where it can't be measured
    :param at_bound: whether a component of the action is at a bound, where an optimum in the interior, and with it the
        bound :math:`M / \mu`, is not given; shape ``(n,)``
    :param cosine: cosine of :math:`\nabla_a Q` at consecutive steps of one episode, shape ``(n - n_episodes,)``
    :param turn: how much :math:`\nabla_a Q` turns along the episodes, see :func:`sb3_pave.evaluation.turn.field_turn`;
        None with ``critic``
    :param notes: what could not be measured, and why
    """

    critic: CriticGeometry | None
    actor_jacobian_norm: NDArray[np.float64] | None
    at_bound: NDArray[np.bool_]
    cosine: NDArray[np.float64]
    turn: FieldTurn | None = None
    notes: tuple[str, ...] = ()

    def summary(self) -> dict[str, float]:
        r"""
        :return: ``M_mean``, ``M_sup``; ``trace_mean``; ``lambda_max_mean``; ``mu_mean`` (over concave states);
            ``negative_definite_rate``; ``bound_median`` of :math:`M / \mu` over the states where it is defined (concave,
            action not at a bound), ``bound_defined_rate``, and ``actor_jacobian_median_where_bound`` over the same states;
            ``field_turn_noise`` :math:`\rho_N` and ``field_turn_step`` :math:`\rho_V`; ``cosine_mean``, ``flip_rate`` (share
            of negative cosines); ``actor_jacobian_mean``, ``actor_jacobian_sup``; ``at_bound_rate``. NaN where a number is
            not defined; those of a part that could not be measured are left out.
        """
        summary: dict[str, float] = {}
        if self.critic is not None:
            defined = self.critic.negative_definite & ~self.at_bound
            summary = {
                "M_mean": float(self.critic.mixed_norm.mean()),
                "M_sup": float(self.critic.mixed_norm.max()),
                "trace_mean": float(self.critic.trace.mean()),
                "lambda_max_mean": float(self.critic.eigenvalues[:, -1].mean()),
                "mu_mean": _over(np.mean, self.critic.mu[self.critic.negative_definite]),
                "negative_definite_rate": float(self.critic.negative_definite.mean()),
                "bound_median": _over(np.median, self.critic.lipschitz_bound[defined]),
                "bound_defined_rate": float(defined.mean()),
            }
            if self.turn is not None:
                summary |= {"field_turn_noise": self.turn.noise_ratio, "field_turn_step": self.turn.step_ratio}
            if self.actor_jacobian_norm is not None:
                summary["actor_jacobian_median_where_bound"] = _over(np.median, self.actor_jacobian_norm[defined])
            summary |= {"cosine_mean": _over(np.mean, self.cosine), "flip_rate": _over(np.mean, self.cosine < 0)}
        if self.actor_jacobian_norm is not None:
            summary["actor_jacobian_mean"] = float(self.actor_jacobian_norm.mean())
            summary["actor_jacobian_sup"] = float(self.actor_jacobian_norm.max())
        return summary | {"at_bound_rate": float(self.at_bound.mean())}


def rollout_geometry(model: BaseAlgorithm, rollout: Rollout, critic: CriticChoice = 0) -> RolloutGeometry:
    """
    Geometry along recorded episodes. Where a part of it can't be measured (the critic of PPO, which has no ``Q(s, a)``; the
    actor of a recurrent policy), the rest is, and ``notes`` say why.

    :param model: the model that made the rollout
    :param rollout: its episodes, with observations
    :param critic: index of a critic of the ensemble, or ``"min"`` for the smallest at each state
    :return: the geometry
    :raises ValueError: if the rollout has no observations or there is no such critic
    """
    if any(batch_size(episode.observations) != len(episode.actions) for episode in rollout.episodes):
        raise ValueError("The geometry needs a rollout with its observations (keep_observations=True)")
    observations = stack_observations(rollout.episodes)
    actions = stack_actions(rollout.episodes)
    lengths = [len(episode.actions) for episode in rollout.episodes]
    low, high = rollout.action_space.low.ravel(), rollout.action_space.high.ravel()  # type: ignore[attr-defined]
    scalable = is_scalable(rollout.action_space)
    saturated = is_saturated(actions, low, high) if scalable else np.zeros(actions.shape, dtype=bool)

    notes: list[str] = []
    of_critic = turn = jacobian = None
    try:
        network = critic_of(model)
    except ValueError as error:
        notes.append(str(error))
    else:
        check_choice(critic, network)
    try:
        if not notes:
            of_critic = critic_geometry(model, observations, actions, critic)
            explored = actions if rollout.deterministic else _deterministic_actions(model, observations)
            turn = field_turn(model, observations, explored, lengths, critic)
    except Exception as error:  # networks of another make may raise anything; they must not cost the actor's part
        notes.append(f"no geometry of its critic: {error}")
    try:
        jacobian = actor_jacobian_norm(model, observations)
    except Exception as error:
        notes.append(f"no Jacobian of its actor: {error}")
    return RolloutGeometry(
        critic=of_critic,
        actor_jacobian_norm=jacobian,
        at_bound=np.asarray(saturated.any(axis=1)),
        cosine=np.empty(0) if of_critic is None else consecutive_cosine(of_critic.gradient, lengths),
        turn=turn,
        notes=tuple(notes),
    )


def consecutive_cosine(gradient: NDArray[np.float64], lengths: list[int]) -> NDArray[np.float64]:
    """
    Cosine of the action gradient at consecutive steps, within each episode.

    :param gradient: ``∇_a Q`` of all episodes, one after the other, shape ``(n, action_dim)``
    :param lengths: the number of steps of each episode
    :return: the cosines, shape ``(n - n_episodes,)``; 0 where a gradient vanishes
    """
    norms = np.linalg.norm(gradient, axis=1, keepdims=True)
    directions = np.divide(gradient, norms, out=np.zeros_like(gradient), where=norms > 0)
    cosine = np.sum(directions[1:] * directions[:-1], axis=1)
    return np.delete(cosine, np.cumsum(lengths)[:-1] - 1)


def _deterministic_actions(model: BaseAlgorithm, observations: Observations) -> NDArray:
    """What the policy answers without exploration, in the environment's scale, shape ``(n, action_dim)``."""
    actions = []
    with evaluation_mode(model.policy):
        for chunk in chunks(batch_size(observations), CHUNK_SIZE):
            part, _ = model.predict(rows(observations, chunk), deterministic=True)
            actions.append(part.reshape(len(part), -1))
    return np.concatenate(actions)


def _over(function: Callable[[NDArray], Any], values: NDArray) -> float:
    """NaN of nothing, without NumPy's warning."""
    return float(function(values)) if len(values) else float("nan")
