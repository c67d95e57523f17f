"""What ``-optimize`` searches and ``--trial-id`` reads back: the zoo's space of the host and the weights of the method."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optuna
from rl_zoo3 import hyperparams_opt
from torch import nn

from sb3_pave.algorithms.units import COEFS

# What an entry for a PAVE class has beyond one for its host
PAVE_PARAMETERS = ("scale_free", *COEFS)

# A third of a decade to one and a third around the range of the published weights
# (mpr_coef 0.1 to 2, vfc_coef 0.0005 to 0.5, curv_coef 0.01 to 3)
WEIGHT_RANGES = {"mpr_coef": (1e-2, 1e1), "vfc_coef": (1e-4, 1e0), "curv_coef": (1e-3, 1e1)}

# Likewise for the rivals, by method (temporal_coef 0.8; CAPS 0.1 to 1 and 0.5 to 5; GRAD 1; ASAP 0.005 to 0.5, 0.03 to 30, 2)
RIVAL_RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "temporal": {"temporal_coef": (1e-1, 1e1)},
    "caps": {"temporal_coef": (1e-2, 1e1), "spatial_coef": (1e-1, 1e2)},
    "grad": {"temporal_coef": (1e-1, 1e1)},
    "asap": {"temporal_coef": (1e-3, 1e0), "spatial_coef": (1e-2, 1e2), "predictor_coef": (1e-1, 1e1)},
    "damper": {"eta": (0, 1)},
}

Hyperparams = dict[str, Any]


@dataclass(frozen=True)
class PaveSampler:
    """
    A zoo sampler: the host's hyperparameters, then the PAVE weights on a log-uniform scale.

    :param sample_host: the zoo's sampler of the host; None where the zoo has none, then the weights alone are searched
    :param with_pave: whether PAVE's weights are among what is searched
    :param rival: an actor-side method, whose weights are searched, too; None: there is none
    """

    sample_host: Callable[..., Hyperparams] | None
    with_pave: bool = True
    rival: str | None = None

    def __call__(self, trial: optuna.Trial, *args: Any) -> Hyperparams:
        hyperparams = {} if self.sample_host is None else self.sample_host(trial, *args)
        ranges = {**(WEIGHT_RANGES if self.with_pave else {}), **(RIVAL_RANGES[self.rival] if self.rival else {})}
        for name, (low, high) in ranges.items():
            hyperparams[name] = trial.suggest_float(name, low, high, log=low > 0)
        return hyperparams if self.with_pave else keep_activation(hyperparams)


@dataclass(frozen=True)
class PaveConverter:
    """
    A zoo converter: parameters as Optuna stored them -> hyperparameters that retrain the trial.

    :param convert_host: the zoo's converter of the host; None where the zoo has none
    :param with_pave: whether the class is one of PAVE's
    """

    convert_host: Callable[[Hyperparams], Hyperparams] | None
    with_pave: bool = True

    def __call__(self, sampled_params: Hyperparams) -> Hyperparams:
        # The weights pass through the zoo's converters unchanged
        hyperparams = dict(sampled_params) if self.convert_host is None else self.convert_host(sampled_params)
        # A trial without noise of its own trained with the noise of the YAML file. The zoo would hand the two
        # entries to the constructor instead, which does not know them.
        if "noise_type" in hyperparams and hyperparams["noise_type"] is None:
            del hyperparams["noise_type"], hyperparams["noise_std"]
        return hyperparams if self.with_pave else keep_activation(hyperparams)


def keep_activation(hyperparams: Hyperparams) -> Hyperparams:
    """
    With the activation of the protocol, which PAVE's classes supply themselves: what was drawn takes the place of a file's
    ``policy_kwargs``, and the zoo's spaces of actor-critics have none.

    :param hyperparams: of a plain host, or of a rival without PAVE
    """
    if not isinstance(hyperparams.get("policy_kwargs"), dict):
        return hyperparams
    return {**hyperparams, "policy_kwargs": {"activation_fn": nn.SiLU, **hyperparams["policy_kwargs"]}}


def pave_sampler(host: str) -> PaveSampler:
    """
    :param host: the zoo's name of the host, "sac" for one
    :return: the sampler of the PAVE algorithm
    """
    sampler = hyperparams_opt.HYPERPARAMS_SAMPLER.get(host)
    # The host's own entry is a PaveSampler already once `drop_in` has been imported
    return sampler if isinstance(sampler, PaveSampler) else PaveSampler(sampler)


def rival_sampler(host: str, method: str, with_pave: bool) -> PaveSampler:
    """
    :param host: the zoo's name of the host, "sac" for one
    :param method: the actor-side method
    :param with_pave: whether PAVE trains the critic
    :return: the sampler of the method on the host
    """
    return PaveSampler(pave_sampler(host).sample_host, with_pave, method)


def pave_converter(host: str, with_pave: bool = True) -> PaveConverter:
    """
    :param host: the zoo's name of the host, "sac" for one
    :param with_pave: False: for a rival without PAVE
    :return: the converter of the PAVE algorithm
    """
    converter = getattr(hyperparams_opt, "HYPERPARAMS_CONVERTER", {}).get(host)
    return PaveConverter(converter.convert_host if isinstance(converter, PaveConverter) else converter, with_pave)
