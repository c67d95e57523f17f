"""Saved agents: zips are the host's own, and those of plain agents can be continued with PAVE."""

import inspect
from collections.abc import Container, Iterable, Sequence
from difflib import get_close_matches
from typing import Any, ClassVar, TypeVar
from zipfile import BadZipFile

from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch import nn

from sb3_pave.algorithms.deferred_log import DeferredLog
from sb3_pave.algorithms.loading import is_loading, loading
from sb3_pave.algorithms.stored import stored_data, stored_value
from sb3_pave.algorithms.units import PAPER, weights_to_load
from sb3_pave.fast.graphs import GraphedUpdate
from sb3_pave.fast.optimizer_steps import without_capture
from sb3_pave.method.scales import Scales

# What PAVE adds to the host's
ARGUMENTS = ("scale_free", *PAPER, "pave_interval", "pave_batch_size", "compile", "cuda_graph")

SelfPave = TypeVar("SelfPave", bound="SavedAsHost")


class SavedAsHost(DeferredLog, OffPolicyAlgorithm):
    """Saving and loading of PAVE's agents."""

    # What the host's constructor adds to the user's policy_kwargs
    _added_policy_kwargs: ClassVar[tuple[str, ...]] = ("use_sde",)

    # ``Pave`` sets them
    scale_free: bool
    _graphs: GraphedUpdate | None
    _scales: Scales

    @classmethod
    def load(cls: type[SelfPave], *args: Any, **kwargs: Any) -> SelfPave:
        """
        Load a PAVE or a plain agent of the host class from a zip file, see ``BaseAlgorithm.load``.

        :param args: the host's positional arguments, the first of which is the path to the file, or a file-like object
        :param kwargs: the host's keyword arguments and hyperparameters to change
        :raises TypeError: if one of them is nearly, but not quite, one of PAVE's
        """
        host_load = super().load
        refuse_misspelled(kwargs, inspect.signature(cls).parameters, ARGUMENTS)
        given = inspect.signature(host_load).bind(*args, **kwargs).arguments
        path = args[0] if args else kwargs.get("path", next(iter(given.values()), None))
        custom_objects = given.get("custom_objects", kwargs.get("custom_objects"))
        try:
            stored = stored_data(path)
            if isinstance(kwargs.get("policy_kwargs"), dict):
                kept = stored_value(stored, "policy_kwargs", custom_objects)
                kwargs["policy_kwargs"] = cls._as_stored(kwargs["policy_kwargs"], kept or {})
        except (OSError, TypeError, ValueError, BadZipFile):
            # Whatever it is, the host's load() knows it or says what is wrong with it
            stored = {}
        weights = weights_to_load(stored, {**(custom_objects or {}), **kwargs})
        with loading():
            return host_load(*args, **{**weights, **kwargs})

    @classmethod
    def _as_stored(cls, policy_kwargs: dict[str, Any], stored: dict[str, Any]) -> dict[str, Any]:
        """
        The given policy arguments with what constructors add to them, so that load() compares like with like.

        :param policy_kwargs: as the user gave them, to the constructor and now to load()
        :param stored: those in the zip file
        """
        added = {key: stored[key] for key in cls._added_policy_kwargs if key in stored}
        if stored.get("activation_fn") is nn.SiLU:
            added["activation_fn"] = nn.SiLU
        return {**added, **policy_kwargs}

    def save(self, *args: Any, **kwargs: Any) -> None:
        """As the host's, with what PAVE has learned of the data as plain numbers and arrays."""
        self.return_scale = float(self._scales.return_scale)
        self.observation_spread = self._scales.spread_as_numbers() if self.scale_free else None
        super().save(*args, **kwargs)

    def __getstate__(self) -> Any:
        """What copies and pickles take along: no recordings, which are of this agent's memory, and nothing on its way."""
        self._finish_log()
        state = getattr(super(), "__getstate__", lambda: vars(self))()  # Python 3.10's object has none
        return {**state, "_graphs": None, "_standing": None} if isinstance(state, dict) else state

    def get_parameters(self, *args: Any, **kwargs: Any) -> dict[str, dict]:
        """As the host's; optimizers as they are without CUDA graphs, so that a saved agent can be loaded anywhere."""
        parameters = super().get_parameters(*args, **kwargs)
        if self._graphs is None:
            return parameters
        return {name: without_capture(state) if name.endswith("optimizer") else state for name, state in parameters.items()}

    def set_parameters(self, *args: Any, **kwargs: Any) -> None:
        """As the host's; the range of returns, which was that of another critic, is found anew."""
        super().set_parameters(*args, **kwargs)
        if not is_loading():
            self._scales.return_scale.zero_()

    def _excluded_save_params(self, *args: Any, **kwargs: Any) -> list[str]:
        own = ["_graphs", "_standing", "_pending_log", "_scales", "_diagnostics", "_mpr_is_idle"]
        return [*super()._excluded_save_params(*args, **kwargs), *own]


def refuse_misspelled(given: Iterable[str], known: Container[str], ours: Sequence[str]) -> None:
    """
    SB3 keeps any keyword argument of ``load()`` as an attribute, which changes nothing if nobody knows it.

    :param given: names of the arguments of ``load()``
    :param known: those that the constructor takes
    :param ours: those that may have been meant
    :raises TypeError: if one is nearly, but not quite, one of ours
    """
    for name in given:
        if name not in known and (near := get_close_matches(name, ours, n=1, cutoff=0.8)):
            raise TypeError(f"load() got {name}, which nothing uses. Did you mean {near[0]}?")
