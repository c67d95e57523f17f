"""How much a policy's action changes with the state, measured on the actor itself."""

from __future__ import annotations

import numpy as np
import torch as th
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_pave.evaluation.derivatives import as_leaves, batched_jacobian, chunk_size
from sb3_pave.evaluation.networks import (
    action_rounding,
    check_agreement,
    differentiable_keys,
    dtype_of,
    evaluation_mode,
    is_scalable,
    preprocess,
    scaled_policy,
)
from sb3_pave.evaluation.observations import Observations, batch_size, chunks, rows
from sb3_pave.evaluation.smoothness import scale_actions


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
        for chunk in chunks(batch_size(observations), size):
            part = rows(observations, chunk)
            inputs, states = as_leaves(preprocess(policy, part), keys)
            action = scaled_policy(policy, inputs)
            if chunk.start == 0 and dtype_of(policy) == th.float32:
                theirs, _ = policy.predict(part, deterministic=True)  # type: ignore[arg-type]
                space = policy.action_space
                if is_scalable(space):
                    theirs = scale_actions(theirs.reshape(len(theirs), -1), space.low, space.high)  # type: ignore[attr-defined]
                    check_agreement(action.detach().cpu().double(), th.as_tensor(theirs), policy, action_rounding(space))  # type: ignore[arg-type]
            jacobian = th.cat(batched_jacobian(action, states), dim=2)
            norms.append(th.linalg.matrix_norm(jacobian, ord=2).cpu().numpy())
    return np.concatenate(norms).astype(np.float64)
