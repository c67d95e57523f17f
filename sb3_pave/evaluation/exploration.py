"""The noise of gSDE, which is drawn before the steps that it acts in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch as th
from stable_baselines3.common.distributions import StateDependentNoiseDistribution

# What sample_weights() of the distribution draws
_DRAWN = ("weights_dist", "exploration_mat", "exploration_matrices")


@contextmanager
def drawn_for_each_episode(model: Any, n_envs: int) -> Iterator[Callable[[int], None]]:
    """
    Inside, an agent with generalized state-dependent exploration (gSDE) acts by noise of its own in each episode rather than
    by what it drew last, when it was loaded or in training; afterwards it has that again. Other agents draw as they act.

    :param model: an algorithm, a policy or anything else with a ``predict`` method
    :param n_envs: number of environments that it acts in at once
    :return: what to call, with its index, when an episode of an environment has ended
    """
    policy = getattr(model, "policy", model)
    # The actor's in SAC and its like, the policy's in PPO and its
    explorer = getattr(policy, "actor", None) or policy
    noise = getattr(explorer, "action_dist", None)
    if not isinstance(noise, StateDependentNoiseDistribution):
        yield lambda i: None
        return

    @th.no_grad()
    def draw(i: int) -> None:
        before = noise.exploration_matrices
        explorer.reset_noise(n_envs)
        others = th.arange(n_envs) != i
        noise.exploration_matrices[others] = before[others]

    kept = {name: getattr(noise, name) for name in _DRAWN}
    explorer.reset_noise(n_envs)
    try:
        yield draw
    finally:
        vars(noise).update(kept)
