"""How an agent acts between its updates: as SB3 has it, without what costs time at each step and never changes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_pave.algorithms.signatures import HostsSignature
from sb3_pave.algorithms.standing import Standing


class ActsSooner(OffPolicyAlgorithm):
    """
    Once updates have begun, SB3's policy sets its networks' mode at once, and is recorded where the update is.
    """

    _standing: Standing | None

    if not TYPE_CHECKING:  # whose readers find the host's

        @HostsSignature
        def collect_rollouts(self, *args: Any, **kwargs: Any) -> Any:
            """As the host's."""
            with _replaced(self.policy, **self._mode_setter()):
                return super().collect_rollouts(*args, **kwargs)

        @HostsSignature
        def _sample_action(self, *args: Any, **kwargs: Any) -> Any:
            acting = None if self._standing is None else self._standing.acting
            recorded = {} if acting is None else {"_predict": acting}
            with _replaced(self.policy, **self._mode_setter(), **recorded):
                return super()._sample_action(*args, **kwargs)

    def _mode_setter(self) -> dict[str, Callable[[bool], None]]:
        """In place of the policy's own method, once: what is called next may be the user's."""
        if self._standing is None or self._standing.modes.policy is not self.policy:
            return {}
        modes, methods = self._standing.modes, vars(self.policy)

        def set_training_mode(mode: bool) -> None:
            del methods["set_training_mode"]
            modes.set(mode)

        return {"set_training_mode": set_training_mode}


@contextmanager
def _replaced(policy: Any, **methods: Callable[..., Any]) -> Iterator[None]:
    """
    Methods that a policy has in place of those of its class in this context, where it has none of its own.

    :param policy: of an agent
    :param methods: by name
    """
    own = vars(policy)
    added = {name: method for name, method in methods.items() if name not in own}
    own.update(added)
    try:
        yield
    finally:
        for name, method in added.items():
            if own.get(name) is method:
                del own[name]
