"""Looking at a trained agent without the memory that training needs."""

from functools import cache
from typing import Any

from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_pave.algorithms.made_classes import make_class


class _Viewing:
    """Stands before the algorithm in the bases."""

    @classmethod
    def load(cls, *args: Any, **kwargs: Any) -> Any:
        return super().load(*args, **{"buffer_size": 1, "optimize_memory_usage": False, **kwargs})  # type: ignore[misc]


@cache
def for_viewing(pave_class: type[OffPolicyAlgorithm]) -> type[OffPolicyAlgorithm]:
    """
    The same algorithm, whose ``load`` makes a replay buffer of one transition unless told otherwise.

    The zoo's ``enjoy``, ``record_video`` and ``push_to_hub`` do this for a fixed list of names that cannot be extended.

    :param pave_class: an algorithm
    :return: a subclass of it, under its name
    """
    # push_to_hub writes the name of the class on the model card
    return make_class(pave_class.__name__, (_Viewing, pave_class), {"__doc__": pave_class.__doc__}, for_viewing, pave_class)
