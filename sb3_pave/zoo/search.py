"""What ``-optimize`` searches and ``--trial-id`` reads back: the zoo's space of the host and the three PAVE weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optuna
from rl_zoo3 import hyperparams_opt

# Half a decade to a decade around the range of the published weights
# (mpr_coef 0.1 to 2, vfc_coef 0.0005 to 0.5, curv_coef 0.01 to 3)
WEIGHT_RANGES = {"mpr_coef": (1e-2, 1e1), "vfc_coef": (1e-4, 1e0), "curv_coef": (1e-3, 1e1)}

Hyperparams = dict[str, Any]


@dataclass(frozen=True)
class PaveSampler:
    """
    A zoo sampler: the host's hyperparameters, then the PAVE weights on a log-uniform scale.

    :param sample_host: the zoo's sampler of the host; None where the zoo has none, then the weights alone are searched
    """

    sample_host: Callable[..., Hyperparams] | None

    def __call__(self, trial: optuna.Trial, *args: Any) -> Hyperparams:
        hyperparams = {} if self.sample_host is None else self.sample_host(trial, *args)
        for name, (low, high) in WEIGHT_RANGES.items():
            hyperparams[name] = trial.suggest_float(name, low, high, log=True)
        return hyperparams


@dataclass(frozen=True)
class PaveConverter:
    """
    A zoo converter: parameters as Optuna stored them -> hyperparameters that retrain the trial.

    :param convert_host: the zoo's converter of the host; None where the zoo has none
    """

    convert_host: Callable[[Hyperparams], Hyperparams] | None

    def __call__(self, sampled_params: Hyperparams) -> Hyperparams:
        # The weights pass through the zoo's converters unchanged
        hyperparams = dict(sampled_params) if self.convert_host is None else self.convert_host(sampled_params)
        # A trial without noise of its own trained with the noise of the YAML file. The zoo would hand the two
        # entries to the constructor instead, which does not know them.
        if "noise_type" in hyperparams and hyperparams["noise_type"] is None:
            del hyperparams["noise_type"], hyperparams["noise_std"]
        return hyperparams


def pave_sampler(host: str) -> PaveSampler:
    """
    :param host: the zoo's name of the host, "sac" for one
    :return: the sampler of the PAVE algorithm
    """
    sampler = hyperparams_opt.HYPERPARAMS_SAMPLER.get(host)
    # The host's own entry is a PaveSampler already once `drop_in` has been imported
    return sampler if isinstance(sampler, PaveSampler) else PaveSampler(sampler)


def pave_converter(host: str) -> PaveConverter:
    """
    :param host: the zoo's name of the host, "sac" for one
    :return: the converter of the PAVE algorithm
    """
    converter = getattr(hyperparams_opt, "HYPERPARAMS_CONVERTER", {}).get(host)
    return converter if isinstance(converter, PaveConverter) else PaveConverter(converter)
