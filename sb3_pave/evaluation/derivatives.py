"""
Exact derivatives of networks, each state of a batch on its own.

They are taken with respect to what the networks were trained on: observations normalised if ``VecNormalize`` is in use,
actions scaled to [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch as th
from torch import nn

from sb3_pave.evaluation.networks import CriticChoice, NetworkInput, chosen_value
from sb3_pave.evaluation.observations import Observations, state_dim

# States whose derivatives are taken together; bounds the memory, not the result
CHUNK_SIZE = 2048
_CHUNK_ENTRIES = 2_000_000


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
        observations, states = as_leaves(observations, keys)
        actions = actions.detach().requires_grad_()
        value = chosen_value(critic, observations, actions, choice)
        (gradient,) = th.autograd.grad(value.sum(), actions, create_graph=True)
        *mixed, hessian = batched_jacobian(gradient, [*states, actions])
    return gradient.detach(), th.cat(mixed, dim=2), (hessian + hessian.transpose(1, 2)) / 2


def as_leaves(observations: NetworkInput, keys: list[str | None] | None) -> tuple[NetworkInput, list[th.Tensor]]:
    """
    :param observations: preprocessed observations, shape ``(batch, ...)``
    :param keys: the entries of a dict observation to differentiate with respect to; None for all
    :return: the observations as leaves of a graph, and those of them to differentiate with respect to
    """
    if isinstance(observations, dict):
        wanted = list(observations) if keys is None else keys
        leaves = {key: value.detach().requires_grad_(key in wanted) for key, value in observations.items()}
        return leaves, [value for value in leaves.values() if value.requires_grad]
    leaf = observations.detach().requires_grad_()
    return leaf, [leaf]


def batched_jacobian(outputs: th.Tensor, inputs: list[th.Tensor]) -> list[th.Tensor]:
    """
    A row of the outputs depends on the same row of the inputs only, so one vectorised backward pass gives all Jacobians.

    :param outputs: shape ``(batch, m)``
    :param inputs: of the outputs, each of shape ``(batch, ...)``
    :return: the Jacobian with respect to each input, shape ``(batch, m, size of the input)``
    """
    batch, m = outputs.shape
    jacobians: Sequence[th.Tensor | None] = [None] * len(inputs)
    if outputs.requires_grad:
        directions = th.eye(m, dtype=outputs.dtype, device=outputs.device)[:, None].expand(m, batch, m)
        jacobians = th.autograd.grad(outputs, inputs, grad_outputs=directions, is_grads_batched=True, allow_unused=True)
    return [
        # A linear critic's gradient is a constant; a features extractor may leave an entry out
        x.new_zeros(batch, m, x[0].numel()) if jacobian is None else jacobian.detach().reshape(m, batch, -1).transpose(0, 1)
        for x, jacobian in zip(inputs, jacobians, strict=True)
    ]


def chunk_size(observations: Observations, action_dim: int) -> int:
    """
    :param observations: shape (n, ...), or a dict of such
    :param action_dim: size of an action
    :return: of how many states the second derivatives fit into memory at once
    """
    return max(1, min(CHUNK_SIZE, _CHUNK_ENTRIES // max(1, state_dim(observations) * action_dim)))
