"""The algorithms that the zoo learns about, one line each."""

from typing import NamedTuple

from stable_baselines3 import SAC, TD3
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_pave import PAVE_DDPG, PAVE_SAC, PAVE_TD3, PAVE_TQC, PAVE_CrossQ
from sb3_pave.baselines import METHODS
from sb3_pave.baselines.factory import with_method


class ZooAlgorithm(NamedTuple):
    """
    One algorithm as the zoo sees it.

    :param name: what ``--algo`` takes; also names the file ``hyperparams/{name}.yml``
    :param pave_class: the class that trains
    :param host: the zoo's name of the algorithm that it extends: its hyperparameters, its search space
    """

    name: str
    pave_class: type[OffPolicyAlgorithm]
    host: str


ZOO_ALGORITHMS = (
    ZooAlgorithm("pave_td3", PAVE_TD3, "td3"),
    ZooAlgorithm("pave_sac", PAVE_SAC, "sac"),
    ZooAlgorithm("pave_ddpg", PAVE_DDPG, "ddpg"),
    ZooAlgorithm("pave_tqc", PAVE_TQC, "tqc"),
    # The zoo has no search space for CrossQ: -optimize searches the PAVE weights alone
    ZooAlgorithm("pave_crossq", PAVE_CrossQ, "crossq"),
)


class ZooRival(NamedTuple):
    """
    An actor-side method on one algorithm, as the zoo sees it.

    :param name: what ``--algo`` takes: ``caps_sac``, or ``caps_pave_sac`` together with PAVE
    :param rival_class: the class that trains
    :param host: the zoo's name of the algorithm that it extends
    :param method: one of ``METHODS``
    :param with_pave: whether PAVE trains the critic
    """

    name: str
    rival_class: type[OffPolicyAlgorithm]
    host: str
    method: str
    with_pave: bool


_HOSTS: dict[str, type[OffPolicyAlgorithm]] = {"td3": TD3, "sac": SAC, "pave_td3": PAVE_TD3, "pave_sac": PAVE_SAC}

ZOO_RIVALS = tuple(
    ZooRival(f"{method}_{name}", with_method(method, host), name.removeprefix("pave_"), method, name.startswith("pave_"))
    for name, host in _HOSTS.items()
    for method in METHODS
)
