"""What a ``train()`` call finds out about its agent, kept until something that it depends on changes."""

from typing import Any

from sb3_pave.algorithms.execution import Execution
from sb3_pave.algorithms.recording import networks_of
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
        self._model = model
        self._watch = Watch(model, networks_of(model), model._optimizers(), model._own_tensors())
        # SB3's do nothing but set modes
        setters = [model.policy, getattr(model, "actor", None), getattr(model, "critic", None)]
        self._only_modes = all(_is_of_upstream(setter) for setter in setters)

    def holds(self) -> bool:
        """Whether nothing changed since; leaves the networks in training mode."""
        if not (self._only_modes and self._watch.restore_modes()):
            self._model.policy.set_training_mode(True)
        return not self._watch.sees_change()


def _is_of_upstream(network: Any) -> bool:
    own = getattr(type(network), "set_training_mode", None)
    return own is None or own.__module__.split(".")[0] in ("stable_baselines3", "sb3_contrib")
