"""How an agent acts between its updates: as SB3 has it, without what costs time at each step and never changes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_pave.algorithms.signatures import HostsSignature
from sb3_pave.algorithms.standing import Standing
from sb3_pave.algorithms.upstream import is_of_upstream

# Methods of a policy that call what is replaced, or are called while it is
_ON_THE_WAY = ("predict", "obs_to_tensor")


class ActsSooner(OffPolicyAlgorithm):
    """
    Once updates have begun, SB3's policy sets its networks' mode at once, and is recorded where the update is.
    """

    _standing: Standing | None

    if not TYPE_CHECKING:  # whose readers find the host's

        @HostsSignature
        def collect_rollouts(self, *args: Any, **kwargs: Any) -> Any:
            """As the host's."""
            with _replaced(self.policy, _mode_setter(self._standing_of_sb3s_acting())):
                return super().collect_rollouts(*args, **kwargs)

        @HostsSignature
        def _sample_action(self, *args: Any, **kwargs: Any) -> Any:
            standing = self._standing_of_sb3s_acting()
            with _replaced(self.policy, {**_mode_setter(standing), **_recorded(standing)}):
                return super()._sample_action(*args, **kwargs)

    def _standing_of_sb3s_acting(self) -> Standing | None:
        """None where the policy is another one by now, or code of the user's would meet it while its methods are replaced."""
        standing = self._standing
        if standing is None or standing.modes.policy is not self.policy:
            return None
        methods_of_its_own = "predict" in vars(self) or not vars(self.policy).keys().isdisjoint(_ON_THE_WAY)
        policy_class: Any = type(self.policy)
        return standing if not methods_of_its_own and _are_sb3s(type(self), policy_class) else None


def _mode_setter(standing: Standing | None) -> dict[str, Callable[..., Any]]:
    """In place of the policy's own method, once: what is called next may be the user's."""
    if standing is None:
        return {}
    modes, methods = standing.modes, vars(standing.modes.policy)

    def set_training_mode(mode: bool) -> None:
        methods.pop("set_training_mode", None)
        modes.set(mode)

    return {"set_training_mode": set_training_mode}


def _recorded(standing: Standing | None) -> dict[str, Callable[..., Any]]:
    """Likewise, a ``predict`` that calls the recording."""
    if standing is None or standing.acting is None:
        return {}
    acting, policy = standing.acting, standing.modes.policy
    recorded: dict[str, Callable[..., Any]] = {"obs_to_tensor": acting.obs_to_tensor, "_predict": acting}

    def predict(*args: Any, **kwargs: Any) -> Any:
        vars(policy).pop("predict", None)
        with _replaced(policy, {} if acting.is_elsewhere else recorded):
            return type(policy).predict(policy, *args, **kwargs)

    return {"predict": predict}


@cache
def _are_sb3s(algorithm: type, policy: type) -> bool:
    """Whether what is called between the replacement of the policy's methods and these methods is SB3's, or sb3-contrib's."""
    bases = algorithm.__mro__
    below = bases[bases.index(ActsSooner) + 1 :]
    found = (next(vars(base)[name] for base in below if name in vars(base)) for name in ("collect_rollouts", "_sample_action"))
    of_policy = (getattr(policy, name) for name in _ON_THE_WAY)
    return all(map(is_of_upstream, (*found, algorithm.predict, *of_policy)))  # type: ignore[attr-defined]


@contextmanager
def _replaced(policy: Any, methods: dict[str, Callable[..., Any]]) -> Iterator[None]:
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
