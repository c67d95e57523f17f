"""Training and evaluation mode of an agent's networks, set at once; equals SB3's ``set_training_mode``."""

from typing import Any

import torch as th
from stable_baselines3.common.policies import BaseModel
from torch import nn

from sb3_pave.algorithms.upstream import is_of_upstream
from sb3_pave.fast.watch import all_values, identical

# Methods that set the mode; a module that has one of them as an attribute of its own may do something else there
_OWN = frozenset(["train", "set_training_mode"])


class Modes:
    """
    SB3's ``set_training_mode`` walks through all networks, several times for each step of the environment; here they are
    remembered. Where setting the mode does more than that, or networks were exchanged meanwhile, SB3's is called.

    :param policy: of the agent, itself where it is compiled
    """

    def __init__(self, policy: Any):
        self.policy = policy
        networks = [policy, getattr(policy, "actor", None), getattr(policy, "critic", None)]
        self._only_modes = all(map(_sets_only_modes, networks))
        modules = _with_mode(policy) if self._only_modes else []
        if not all(map(_takes_its_mode, modules)):
            self._only_modes, modules = False, []
        self._modules = [vars(module) for module in modules]
        self._children = [module._modules for module in modules]
        self._children_before = all_values(self._children)
        self._n_attributes = [*map(len, self._modules[1:])]

    def set(self, training: bool) -> None:
        """
        :param training: True: training mode, False: evaluation mode
        """
        if self._only_modes and self._are_the_same():
            for module in self._modules:
                module["training"] = training
        else:
            self.policy.set_training_mode(training)

    def _are_the_same(self) -> bool:
        if not identical(all_values(self._children), self._children_before):
            return False
        # A method that was set meanwhile has to be called. Of the policy itself, the other attributes come and go
        return _OWN.isdisjoint(vars(self.policy)) and self._n_attributes == [*map(len, self._modules[1:])]


def _takes_its_mode(module: nn.Module) -> bool:
    """Whether its mode is an attribute that ``train()`` sets, and nothing more."""
    is_plain = type(module).train is nn.Module.train and not isinstance(module, th.jit.ScriptModule)
    return is_plain and _OWN.isdisjoint(vars(module))


def _with_mode(policy: Any) -> list[nn.Module]:
    """What SB3's ``set_training_mode`` changes: target networks, say, are not among it."""
    if type(policy).set_training_mode is BaseModel.set_training_mode:
        return [*policy.modules()]
    return [policy, *policy.actor.modules(), *policy.critic.modules()]


def _sets_only_modes(network: Any) -> bool:
    """SB3's ``set_training_mode`` does nothing else, a user's may."""
    own = getattr(type(network), "set_training_mode", None)
    return own is None or is_of_upstream(own)
