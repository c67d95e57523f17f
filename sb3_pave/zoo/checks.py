"""
Mistakes that the zoo would pass on: to SB3's ``load()``, which takes any keyword, or to where the error names neither the
hyperparameter nor the file.
"""

import difflib
import functools
import inspect
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any
from zipfile import BadZipFile

from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.utils import ALGOS

from sb3_pave.algorithms.mixin import Pave
from sb3_pave.algorithms.stored import stored_data
from sb3_pave.baselines.mixin import ActorSideMethod
from sb3_pave.zoo.constructors import accepted_names
from sb3_pave.zoo.errors import ZooError

#: Entries of the zoo's files that no constructor takes
ZOO_KEYS = frozenset(
    (
        *("n_envs", "normalize", "frame_stack", "env_wrapper", "vec_env_wrapper", "callback", "env_kwargs"),
        *("monitor_kwargs", "noise_type", "noise_std"),
    )
)
# What the zoo makes action noise of, after it has taken out all else that no constructor takes
_NOISE = frozenset(("noise_type", "noise_std"))
# What the zoo itself gives the constructor
ZOOS_OWN = frozenset(("env", "seed", "device", "verbose", "tensorboard_log", "_init_setup_model"))


def install_checks() -> None:
    """Have the zoo check what our algorithms are given, before it makes folders and environments; idempotent."""
    zoo_processes = ExperimentManager._preprocess_hyperparams
    if hasattr(zoo_processes, "checks_for_pave"):
        return

    @functools.wraps(zoo_processes)
    def preprocess(self: ExperimentManager, hyperparams: dict[str, Any]) -> Any:
        processed = zoo_processes(self, hyperparams)
        algorithm = ALGOS[self.algo]
        if issubclass(algorithm, (Pave, ActorSideMethod)):
            refuse_unknown(self.algo, algorithm, processed[0])
            if self.continue_training:
                refuse_other_entropy(self.trained_agent, processed[0])
        return processed

    preprocess.checks_for_pave = True  # type: ignore[attr-defined]
    ExperimentManager._preprocess_hyperparams = preprocess  # type: ignore[method-assign]


def refuse_unknown(name: str, algorithm: type, hyperparams: Collection[str]) -> None:
    """
    :param name: name of the algorithm in the zoo
    :param algorithm: its class
    :param hyperparams: names of what its constructor, or ``load()``, will be given
    :raises ZooError: if the constructor does not take one of them
    """
    accepted = accepted_names(inspect.signature(algorithm).parameters)
    if accepted is None:
        return
    known = accepted | _NOISE
    for one in hyperparams:
        if one not in known:
            hint = nearest(one, (known | ZOO_KEYS | {"n_timesteps"}) - ZOOS_OWN)
            raise ZooError(f"{name} has no hyperparameter {one!r}{hint and f'; did you mean {hint}?'}")


def refuse_other_entropy(agent: str, hyperparams: Mapping[str, Any]) -> None:
    """
    :param agent: the zip file that training goes on from
    :param hyperparams: what its ``load()`` will be given
    :raises ZooError: if it has learned its entropy coefficient and is to go on with a fixed one, or the other way round
    """
    given, before = hyperparams.get("ent_coef"), _stored(agent).get("ent_coef")
    if given is None or before is None or _is_learned(given) == _is_learned(before):
        return
    kept = f"\"ent_coef:'{before}'\"" if _is_learned(before) else f"ent_coef:{before}"
    raise ZooError(
        f"{agent} trained with ent_coef {before}, and SB3 can't go on from there with ent_coef {given}: keep its own "
        f"(-params {kept}), or take the zoo's file of the host (-conf)"
    )


def refuse_misspelled_algorithm(arguments: Sequence[str]) -> None:
    """
    :param arguments: of a command of the zoo, whose own message lists every algorithm
    :raises ZooError: if one is near what ``--algo`` was given
    """
    separate = [part for argument in arguments for part in argument.split("=", maxsplit=1)]
    for option, name in pairwise(separate):
        if option == "--algo" and name not in ALGOS and (hint := nearest(name, ALGOS)):
            raise ZooError(f"--algo: there is no {name!r}; did you mean {hint}?")


def nearest(name: str, known: Iterable[str]) -> str:
    """
    :param name: a name that is not known
    :param known: those that are
    :return: the nearest; empty if none is near
    """
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), "")


def _is_learned(ent_coef: Any) -> bool:
    return isinstance(ent_coef, str) and ent_coef.startswith("auto")


def _stored(agent: str) -> dict[str, Any]:
    """The plain data of a zip file; nothing where it can't be read, which load() will say."""
    try:
        return stored_data(agent)
    except (OSError, ValueError, BadZipFile):
        return {}
