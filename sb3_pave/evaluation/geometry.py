"""Geometry of a critic along the states that its policy visits: exact second derivatives, a batch at a time.

All derivatives are with respect to what the networks were trained on: observations normalised if ``VecNormalize`` is in
use, actions scaled to [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch as th
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn

from sb3_pave.evaluation.networks import (
    CriticChoice,
    NetworkInput,
    Observations,
    action_rounding,
    batch_size,
    check_agreement,
    check_choice,
    critic_of,
    critic_values,
    differentiable_keys,
    evaluation_mode,
    is_scalable,
    preprocess,
    rows,
    scaled_policy,
)
from sb3_pave.evaluation.rollout import Rollout, stack_actions, stack_observations
from sb3_pave.evaluation.smoothness import is_saturated, scale_actions
from sb3_pave.evaluation.turn import FieldTurn, field_turn
from sb3_pave.user_warning import warn_user

# States whose derivatives are taken together; bounds the memory, not the result
CHUNK_SIZE = 2048
_CHUNK_ENTRIES = 2_000_000


@dataclass(frozen=True)
class CriticGeometry:
    r"""
    Derivatives of one critic at ``n`` states and actions.

    :param gradient: :math:`\nabla_a Q`, shape ``(n, action_dim)``
    :param mixed_norm: :math:`\|\nabla^2_{sa} Q\|_2`, the largest singular value, shape ``(n,)``
    :param eigenvalues: those of :math:`\nabla^2_{aa} Q`, ascending, shape ``(n, action_dim)``
    """

    gradient: NDArray[np.float64]
    mixed_norm: NDArray[np.float64]
    eigenvalues: NDArray[np.float64]

    @property
    def trace(self) -> NDArray[np.float64]:
        r""":return: the trace of :math:`\nabla^2_{aa} Q`, shape ``(n,)``"""
        return self.eigenvalues.sum(axis=1)

    @property
    def negative_definite(self) -> NDArray[np.bool_]:
        r""":return: whether all eigenvalues of :math:`\nabla^2_{aa} Q` are negative, shape ``(n,)``"""
        return self.eigenvalues[:, -1] < 0

    @property
    def mu(self) -> NDArray[np.float64]:
        r""":return: :math:`\mu = |\lambda_{max}(\nabla^2_{aa} Q)|`, shape ``(n,)``; NaN where the critic is not concave"""
        return np.where(self.negative_definite, -self.eigenvalues[:, -1], np.nan)

    @property
    def lipschitz_bound(self) -> NDArray[np.float64]:
        r""":return: :math:`M / \mu`, shape ``(n,)``; NaN where the critic is not concave"""
        return self.mixed_norm / self.mu


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


def critic_geometry(
    model: BaseAlgorithm,
    observations: Observations,
    actions: NDArray,
    critic: CriticChoice = 0,
) -> CriticGeometry:
    """
    Exact geometry of a critic at given states and actions.

    :param model: DDPG, TD3, SAC, TQC, CrossQ or a subclass of them
    :param observations: as the policy sees them (normalised if ``VecNormalize`` is in use), shape
        ``(n, *observation_shape)``, or a dict of such arrays. Derivatives are taken of all entries but categories.
    :param actions: actions in the environment's scale, shape ``(n, action_dim)``
    :param critic: index of a critic of the ensemble, or ``"min"`` for the smallest at each state
    :return: the geometry
    :raises ValueError: if there is no such critic, or the model's critic is not made as Stable-Baselines3 makes them
    """
    network = critic_of(model)
    check_choice(critic, network)
    space = model.policy.action_space
    scaled = scale_actions(actions, space.low, space.high)  # type: ignore[attr-defined]
    keys = differentiable_keys(model.observation_space)
    gradients, norms, eigenvalues = [], [], []
    with evaluation_mode(network):
        size = chunk_size(observations, scaled.shape[1])
        for start in range(0, len(scaled), size):
            part = rows(observations, slice(start, start + size))
            inputs = preprocess(model.policy, part)
            action = th.as_tensor(scaled[start : start + size], dtype=_dtype(network), device=model.policy.device)
            if start == 0:
                _check_critic(model, network, part, inputs, action)
            gradient, mixed, hessian = second_derivatives(network, inputs, action, critic, keys)
            gradients.append(gradient.cpu().numpy())
            norms.append(th.linalg.matrix_norm(mixed, ord=2).cpu().numpy())
            eigenvalues.append(th.linalg.eigvalsh(hessian).cpu().numpy())
    result = CriticGeometry(*(np.concatenate(parts).astype(np.float64) for parts in (gradients, norms, eigenvalues)))
    if not result.mixed_norm.any() and not result.eigenvalues.any():
        warn_user(
            f"The critic of this {type(model).__name__} is linear wherever it was looked at (ReLU?): all its second "
            "derivatives are 0 and say nothing. Train with a smooth activation, policy_kwargs=dict(activation_fn=nn.SiLU)."
        )
    return result


def second_derivatives(
    critic: nn.Module,
    observations: NetworkInput,
    actions: th.Tensor,
    choice: CriticChoice = 0,
    keys: list[str | None] | None = None,
) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
    """
    Gradient and second derivatives of a critic, each state and action of the batch on its own.

    :param critic: the critic of a model
    :param observations: preprocessed observations, shape ``(batch, ...)``
    :param actions: actions in [-1, 1], shape ``(batch, action_dim)``
    :param choice: index of a critic of the ensemble, or ``"min"``
    :param keys: the entries of a dict observation to differentiate with respect to; all by default
    :return: ``∇_a Q`` of shape ``(batch, action_dim)``, ``∇²_sa Q`` of shape ``(batch, action_dim, state_dim)`` and
        ``∇²_aa Q`` of shape ``(batch, action_dim, action_dim)``
    """
    with th.enable_grad():
        observations, states = _as_leaves(observations, keys)
        actions = actions.detach().requires_grad_()
        values = critic_values(critic, observations, actions)
        value = values.min(dim=0).values if choice == "min" else values[choice]
        (gradient,) = th.autograd.grad(value.sum(), actions, create_graph=True)
        *mixed, hessian = _batched_jacobian(gradient, [*states, actions])
    return gradient.detach(), th.cat(mixed, dim=2), (hessian + hessian.transpose(1, 2)) / 2


def actor_jacobian_norm(model: BaseAlgorithm, observations: Observations) -> NDArray[np.float64]:
    r"""
    :math:`\|\nabla_s \pi\|_2` of the deterministic policy, actions in [-1, 1]: what :math:`M / \mu` bounds, measured.

    :param model: TD3, DDPG, SAC, TQC, CrossQ, PPO, A2C or a subclass of them
    :param observations: as the policy sees them (normalised if ``VecNormalize`` is in use), shape
        ``(n, *observation_shape)``, or a dict of such arrays
    :return: the norms, shape ``(n,)``
    :raises ValueError: if the actor is not made as Stable-Baselines3 makes them
    """
    policy = model.policy
    keys = differentiable_keys(model.observation_space)
    norms = []
    with evaluation_mode(policy), th.enable_grad():
        size = chunk_size(observations, int(np.prod(policy.action_space.shape)))  # type: ignore[arg-type]
        for start in range(0, batch_size(observations), size):
            part = rows(observations, slice(start, start + size))
            inputs, states = _as_leaves(preprocess(policy, part), keys)
            action = scaled_policy(policy, inputs)
            if start == 0 and _dtype(policy) == th.float32:
                theirs, _ = policy.predict(part, deterministic=True)  # type: ignore[arg-type]
                space = policy.action_space
                if is_scalable(space):
                    theirs = scale_actions(theirs.reshape(len(theirs), -1), space.low, space.high)  # type: ignore[attr-defined]
                    check_agreement(action.detach().cpu().double(), th.as_tensor(theirs), policy, action_rounding(space))  # type: ignore[arg-type]
            jacobian = th.cat(_batched_jacobian(action, states), dim=2)
            norms.append(th.linalg.matrix_norm(jacobian, ord=2).cpu().numpy())
    return np.concatenate(norms).astype(np.float64)


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
        for start in range(0, batch_size(observations), CHUNK_SIZE):
            part, _ = model.predict(rows(observations, slice(start, start + CHUNK_SIZE)), deterministic=True)
            actions.append(part.reshape(len(part), -1))
    return np.concatenate(actions)


def _as_leaves(observations: NetworkInput, keys: list[str | None] | None) -> tuple[NetworkInput, list[th.Tensor]]:
    """The observations as leaves of a graph, and those of them to differentiate with respect to."""
    if isinstance(observations, dict):
        wanted = list(observations) if keys is None else keys
        leaves = {key: value.detach().requires_grad_(key in wanted) for key, value in observations.items()}
        return leaves, [value for value in leaves.values() if value.requires_grad]
    leaf = observations.detach().requires_grad_()
    return leaf, [leaf]


def _batched_jacobian(outputs: th.Tensor, inputs: list[th.Tensor]) -> list[th.Tensor]:
    """
    Jacobians of ``outputs`` of shape ``(batch, m)`` with respect to each input, of shape ``(batch, m, size of input)``.
    A row of the output depends on the same row of the inputs only, so one vectorised backward pass gives them all.
    """
    batch, m = outputs.shape
    if not outputs.requires_grad:  # a linear critic: its gradient is a constant
        return [x.new_zeros(batch, m, x[0].numel()) for x in inputs]
    directions = th.eye(m, dtype=outputs.dtype, device=outputs.device)[:, None].expand(m, batch, m)
    jacobians = th.autograd.grad(
        outputs, inputs, grad_outputs=directions, is_grads_batched=True, allow_unused=True, materialize_grads=True
    )
    return [jacobian.detach().reshape(m, batch, -1).transpose(0, 1) for jacobian in jacobians]


def chunk_size(observations: Observations, action_dim: int) -> int:
    """
    :param observations: shape (n, ...), or a dict of such
    :param action_dim: size of an action
    :return: of how many states the second derivatives fit into memory at once
    """
    arrays = list(observations.values()) if isinstance(observations, dict) else [observations]
    state_dim = sum(int(np.prod(array.shape[1:])) for array in arrays)
    return max(1, min(CHUNK_SIZE, _CHUNK_ENTRIES // max(1, state_dim * action_dim)))


def _dtype(module: nn.Module) -> th.dtype:
    return next(module.parameters()).dtype


def _check_critic(
    model: BaseAlgorithm, critic: nn.Module, part: Observations, inputs: NetworkInput, actions: th.Tensor
) -> None:
    """Compare with the critic's own forward pass, which works in float32 only."""
    if _dtype(critic) != th.float32:
        return
    with th.no_grad():
        output = critic(model.policy.obs_to_tensor(part)[0], actions)  # type: ignore[arg-type]
        # TQC stacks the quantiles of its critics, the others return one column each
        theirs = output.mean(dim=2).T if isinstance(output, th.Tensor) else th.cat(output, dim=1).T
        check_agreement(critic_values(critic, inputs, actions), theirs, critic)


def _over(function, values: NDArray) -> float:
    """NaN of nothing, without NumPy's warning."""
    return float(function(values)) if len(values) else float("nan")
