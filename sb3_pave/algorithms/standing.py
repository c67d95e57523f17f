"""What a ``train()`` call finds out about its agent, kept until something that it depends on changes."""

from typing import Any

from stable_baselines3.common.policies import BaseModel
from torch import nn

from sb3_pave.algorithms.execution import Execution
from sb3_pave.algorithms.recording import networks_of
from sb3_pave.algorithms.upstream import is_of_upstream
from sb3_pave.fast.watch import Watch


class Standing:
    """
    How an agent is to be trained. Users change networks, optimizers and hyperparameters in place, and what was found out
    holds only as long as they have not.

    :param model: the agent, its networks in training mode
    :param execution: how its updates are done
    """

    def __init__(self, model: Any, execution: Execution):
        self.execution = execution
        policy = getattr(model.policy, "_orig_mod", model.policy)  # also where it is compiled
        networks = [getattr(model, name, None) for name in ("actor", "critic")]
        self._policy = policy
        self._only_modes = all(_sets_only_modes(network) for network in (policy, *networks))
        self._watch = Watch(model, networks_of(model), model._optimizers(), model._own_tensors(), _with_mode(policy))

    def holds(self) -> bool:
        """Whether nothing changed since; leaves the networks in training mode."""
        if not (self._only_modes and self._watch.restore_modes()):
            self._policy.set_training_mode(True)
        return not self._watch.sees_change()


def _with_mode(policy: Any) -> list[nn.Module]:
    """What SB3's ``set_training_mode`` puts into training mode: target networks, say, are not among it."""
    if type(policy).set_training_mode is BaseModel.set_training_mode:
        return [*policy.modules()]
    return [policy, *policy.actor.modules(), *policy.critic.modules()]


def _sets_only_modes(network: Any) -> bool:
    """SB3's ``set_training_mode`` does nothing else, a user's may."""
    own = getattr(type(network), "set_training_mode", None)
    return own is None or is_of_upstream(own)
