"""Small agents with an actor-side method, and what happens at their actor's steps."""

from typing import Any

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_pave.baselines import asap, caps, damper, grad, temporal

FACTORIES = {"temporal": temporal, "caps": caps, "grad": grad, "asap": asap, "damper": damper}
# Large enough to matter within a few updates
WEIGHTS: dict[str, dict[str, float]] = {
    "temporal": {"temporal_coef": 3.0},
    "caps": {"temporal_coef": 2.0, "spatial_coef": 5.0},
    "grad": {"temporal_coef": 4.0},
    "asap": {"temporal_coef": 2.0, "spatial_coef": 3.0, "predictor_coef": 1.5},
    "damper": {"eta": 0.7},
}
ZERO = {name: dict.fromkeys(weights, 0) for name, weights in WEIGHTS.items() if name != "damper"}


def small(algorithm: type[BaseAlgorithm], env: Any = "Pendulum-v1", **kwargs: Any) -> Any:
    """
    :param algorithm: its class
    :param env: its environment
    :param kwargs: further arguments
    """
    settings = {"learning_starts": 20, "buffer_size": 200, "batch_size": 8, "seed": 0, "policy_kwargs": {"net_arch": [16]}}
    return algorithm(kwargs.pop("policy", "MlpPolicy"), env, **{**settings, **kwargs})


def flat(model: Any) -> th.Tensor:
    """Every parameter of the agent in one vector."""
    return th.cat([parameter.detach().flatten() for parameter in model.policy.parameters()])


class ActorSteps:
    """
    The gradient of each step of an agent's actor, before a method joins it and after.

    :param model: the agent
    """

    def __init__(self, model: Any):
        self.before: list[list[th.Tensor]] = []
        self.after: list[list[th.Tensor]] = []
        self._parameters = list(model.actor.parameters())
        # Hooks run in the order in which they were registered: this one before the method's
        model.actor.optimizer.register_step_pre_hook(lambda *_: self.before.append(self._gradients()))
        model.actor.optimizer.register_step_post_hook(lambda *_: self.after.append(self._gradients()))

    def _gradients(self) -> list[th.Tensor]:
        return [th.zeros_like(p) if p.grad is None else p.grad.detach().clone() for p in self._parameters]

    def added(self, step: int = 0) -> th.Tensor:
        """What the method added in one of the steps, as a vector."""
        pairs = zip(self.before[step], self.after[step], strict=True)
        return th.cat([(after - before).flatten() for before, after in pairs]).double()
