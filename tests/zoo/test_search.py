import subprocess

import optuna
import pytest
from rl_zoo3 import hyperparams_opt
from rl_zoo3.hyperparams_opt import sample_sac_params, sample_td3_params
from torch import nn

from sb3_pave.zoo import running
from sb3_pave.zoo.search import (
    WEIGHT_RANGES,
    PaveConverter,
    PaveSampler,
    keep_activation,
    pave_converter,
    pave_sampler,
    rival_sampler,
)

needs_converters = pytest.mark.skipif(not hasattr(hyperparams_opt, "HYPERPARAMS_CONVERTER"), reason="zoo 2.5 loads no trials")
NO_HER = {"using_her_replay_buffer": False, "her_kwargs": {}}


def trial_of(sampler, seed=0):
    """A trial and what the sampler made of it."""
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
    return trial, sampler(trial, 1, 1, dict(NO_HER))


@pytest.mark.parametrize(("host", "sample_host"), [("td3", sample_td3_params), ("sac", sample_sac_params)])
def test_the_space_is_the_zoos_and_the_weights_on_a_log_scale(host, sample_host):
    trial, hyperparams = trial_of(pave_sampler(host))
    host_trial, host_hyperparams = trial_of(sample_host)

    assert trial.distributions.keys() - host_trial.distributions.keys() == WEIGHT_RANGES.keys()
    assert hyperparams.keys() - host_hyperparams.keys() == WEIGHT_RANGES.keys()
    for name, (low, high) in WEIGHT_RANGES.items():
        assert trial.distributions[name] == optuna.distributions.FloatDistribution(low, high, log=True)
        assert low <= hyperparams[name] <= high
    # The class supplies SiLU where none is given
    assert "activation_fn" not in hyperparams["policy_kwargs"]


@needs_converters
def test_a_rival_without_pave_keeps_the_protocols_activation():
    """What is searched replaces the file's ``policy_kwargs``; beside PAVE's classes, which have SiLU, ReLU would be unfair."""
    trial, sampled = trial_of(rival_sampler("td3", "caps", with_pave=False))
    converted = pave_converter("td3", with_pave=False)(trial.params)
    for hyperparams in (sampled, converted):
        assert hyperparams["policy_kwargs"]["activation_fn"] is nn.SiLU and hyperparams["policy_kwargs"]["net_arch"]
    _, sampled = trial_of(rival_sampler("td3", "caps", with_pave=True))
    assert "activation_fn" not in sampled["policy_kwargs"]


def test_the_published_weights_lie_in_the_space():
    published = {"mpr_coef": (0.1, 2.0), "vfc_coef": (0.0005, 0.5), "curv_coef": (0.01, 3.0)}
    for name, weights in published.items():
        low, high = WEIGHT_RANGES[name]
        assert all(low < weight < high for weight in weights)


def test_without_a_sampler_of_the_host_the_weights_alone_are_searched():
    _, hyperparams = trial_of(pave_sampler("no_such_algorithm"))
    assert hyperparams.keys() == WEIGHT_RANGES.keys()


@needs_converters
@pytest.mark.parametrize("host", ["td3", "sac"])
@pytest.mark.parametrize("seed", range(4))
def test_the_converter_gives_back_what_the_sampler_sampled(host, seed):
    trial, sampled = trial_of(pave_sampler(host), seed)
    converted = pave_converter(host)(trial.params)
    # The zoo names noise by its type, and makes the object when it trains
    sampled.pop("action_noise", None)
    converted.pop("noise_type", None)
    converted.pop("noise_std", None)
    assert converted == sampled


@needs_converters
def test_a_trial_without_noise_of_its_own_keeps_the_noise_of_the_file():
    params = {"one_minus_gamma": 0.01, "net_arch": "small", "noise_std": 0.3, "mpr_coef": 1.0}
    convert = pave_converter("td3")
    assert not {"noise_type", "noise_std"} & convert({**params, "noise_type": None}).keys()
    with_noise = convert({**params, "noise_type": "normal"})
    assert (with_noise["noise_type"], with_noise["noise_std"], with_noise["mpr_coef"]) == ("normal", 0.3, 1.0)


def test_converting_a_trial_leaves_its_parameters_as_they_were():
    sampled = {"mpr_coef": 1.0, "noise_type": None, "noise_std": 0.3}
    assert PaveConverter(None)(sampled) == {"mpr_coef": 1.0} and len(sampled) == 3


def test_samplers_of_one_host_are_equal():
    assert pave_sampler("sac") == PaveSampler(sample_sac_params)
    assert pave_sampler("sac") != pave_sampler("td3")


def test_an_activation_that_was_drawn_comes_before_the_protocols():
    drawn = {"policy_kwargs": {"net_arch": [64], "activation_fn": nn.Tanh}}
    assert keep_activation(drawn) == drawn


def test_processes_are_started_as_before_when_a_command_of_the_zoo_is_over():
    before = subprocess.call
    with pytest.raises(KeyError), running._children_know_pave():
        assert subprocess.call is not before
        raise KeyError
    assert subprocess.call is before
