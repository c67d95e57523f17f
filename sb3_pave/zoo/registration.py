"""Adding PAVE to the zoo's dictionaries, which its modules share."""

from rl_zoo3 import hyperparams_opt
from rl_zoo3.callbacks import ParallelTrainCallback
from rl_zoo3.utils import ALGOS
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_pave.zoo.algorithms import ZOO_ALGORITHMS, ZOO_RIVALS
from sb3_pave.zoo.checks import install_checks
from sb3_pave.zoo.defaults import provide_defaults
from sb3_pave.zoo.search import PaveSampler, pave_converter, pave_sampler, rival_sampler
from sb3_pave.zoo.viewing import for_viewing


def register(view_only: bool = False) -> None:
    """
    Make RL Zoo know the PAVE algorithms (``pave_td3``, ``pave_sac`` ...) and their rivals (``caps_sac``, ``damper_pave_td3``
    ...): its own functions then take them like any other.

    Call it before the zoo builds its parser::

        from rl_zoo3.train import train
        from sb3_pave.zoo import register

        register()
        train()

    Calling it again changes nothing.

    :param view_only: for scripts that load an agent only to look at it: ``load`` then makes a replay buffer of a
        single transition, as the zoo's ``enjoy`` does for the algorithms that it knows by name. Such an agent must
        not be trained any further.
    """
    for algorithm in ZOO_ALGORITHMS:
        pave_class = for_viewing(algorithm.pave_class) if view_only else algorithm.pave_class
        _put(algorithm.name, pave_class, algorithm.host, pave_sampler(algorithm.host))
    for rival in ZOO_RIVALS:
        rival_class = for_viewing(rival.rival_class) if view_only else rival.rival_class
        _put(rival.name, rival_class, rival.host, rival_sampler(rival.host, rival.method, rival.with_pave))
    _adapt_the_zoo()


def replace_hosts() -> None:
    """Let the zoo's own names (``td3``, ``sac`` ...) train with PAVE. Calling it again changes nothing."""
    for algorithm in ZOO_ALGORITHMS:
        _put(algorithm.host, algorithm.pave_class, algorithm.host, pave_sampler(algorithm.host))
    _adapt_the_zoo()


def _put(name: str, algorithm: type[OffPolicyAlgorithm], host: str, sampler: PaveSampler) -> None:
    ALGOS[name] = algorithm
    hyperparams_opt.HYPERPARAMS_SAMPLER[name] = sampler  # type: ignore[assignment]
    # Zoo 2.5 can't load a trial, and has no converters
    getattr(hyperparams_opt, "HYPERPARAMS_CONVERTER", {})[name] = pave_converter(host, sampler.with_pave)


def _adapt_the_zoo() -> None:
    provide_defaults()
    install_checks()
    # PAVE refuses this callback (it would train without PAVE) before it has a process. The zoo ends it all the same, and
    # its AttributeError would hide our message.
    ParallelTrainCallback.process = None  # type: ignore[assignment]
