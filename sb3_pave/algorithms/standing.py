"""What a ``train()`` call finds out about its agent, kept until something that it depends on changes."""

from typing import Any

from sb3_pave.algorithms.execution import Execution
from sb3_pave.algorithms.modes import Modes
from sb3_pave.algorithms.recording import networks_of
from sb3_pave.fast.recorded_policy import RecordedPolicy
from sb3_pave.fast.watch import Watch


class Standing:
    """
    How an agent is to be trained, and acts between updates. Users change networks, optimizers and hyperparameters in place,
    and what was found out holds only as long as they have not.

    :param model: the agent, its networks in training mode
    :param execution: how its updates are done
    :param acting: how it acts; None: as SB3 does it
    """

    def __init__(self, model: Any, execution: Execution, acting: RecordedPolicy | None):
        self.execution = execution
        self.acting = acting
        self.modes = Modes(getattr(model.policy, "_orig_mod", model.policy))  # also where it is compiled
        self._watch = Watch(model, networks_of(model), model._optimizers(), model._own_tensors())

    def holds(self) -> bool:
        """Whether nothing changed since; leaves the networks in training mode."""
        self.modes.set(True)
        return not self._watch.sees_change()
