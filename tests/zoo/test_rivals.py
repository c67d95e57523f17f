"""The rivals in the zoo: PAVE's protocol, their published weights, their search spaces."""

import inspect
from pathlib import Path

import optuna
import pytest
import yaml
from rl_zoo3 import hyperparams_opt
from rl_zoo3.utils import ALGOS
from stable_baselines3 import TD3

import sb3_pave
from sb3_pave import PAVE_SAC, PAVE_TD3
from sb3_pave.baselines import METHODS, asap, caps, damper
from sb3_pave.baselines.factory import with_method
from sb3_pave.evaluation.labels import label
from sb3_pave.evaluation.zip_files import algorithm_name
from sb3_pave.zoo import register
from sb3_pave.zoo.algorithms import ZOO_RIVALS
from sb3_pave.zoo.defaults import default_hyperparameters
from sb3_pave.zoo.files import hyperparams_folder
from sb3_pave.zoo.rivals import paper_protocol, rival_weights
from sb3_pave.zoo.search import RIVAL_RANGES, pave_converter, rival_sampler
from tests.conftest import SHORT, SMALL
from tests.zoo.test_train import NO_EVALUATION, run_folder, saved_config, saved_data

OURS = hyperparams_folder(sb3_pave.__file__)
PAVES_OWN = ("mpr_coef", "vfc_coef", "curv_coef", "scale_free")
RESULTS = Path(__file__).parents[2] / "examples" / "results"
ENVIRONMENTS = ("LunarLanderContinuous", "Pendulum", "Reacher", "Ant", "Hopper", "Walker2d", "Humanoid")

# The comparisons of PAVE's and DAMPER's authors, in the order of the environments
CAPS = [(0.1, 0.5), (1, 5), *[(0.1, 0.5)] * 5]
PUBLISHED = {
    ("temporal", "td3"): [(0.8,)] * 7,
    ("temporal", "sac"): [(0.8,)] * 7,
    ("caps", "td3"): CAPS,
    ("caps", "sac"): CAPS,
    ("grad", "td3"): [(1,)] * 7,
    ("grad", "sac"): [(1,)] * 7,
    ("asap", "td3"): [(0.005, 0.03, 2)] * 2 + [(0.1, 0.1, 2), (0.05, 0.3, 2), (0.07, 0.3, 2)] + [(0.05, 0.3, 2)] * 2,
    ("asap", "sac"): [(0.5, spatial, 2) for spatial in (10, 5, 5, 30, 10, 5, 5)],
    ("damper", "td3"): [(0.8,), (1,), (1,), (0,), (1,), (1,), (0.5,)],
    ("damper", "sac"): [(1,), (1,), (0.8,), (0,), (0,), (1,), (0.5,)],
}
NAMES = {
    "temporal": ["temporal_coef"],
    "caps": ["temporal_coef", "spatial_coef"],
    "grad": ["temporal_coef"],
    "asap": ["temporal_coef", "spatial_coef", "predictor_coef"],
    "damper": ["eta"],
}


def env_id_of(host, name):
    return next(env_id for env_id in yaml.safe_load((OURS / f"pave_{host}.yml").read_text()) if env_id.startswith(f"{name}-"))


@pytest.mark.parametrize(("method", "host"), PUBLISHED)
def test_the_weights_are_the_published_ones(method, host):
    for name, expected in zip(ENVIRONMENTS, PUBLISHED[method, host], strict=True):
        weights = rival_weights(method, host, env_id_of(host, name))
        assert weights == dict(zip(NAMES[method], expected, strict=True)), name
    assert rival_weights(method, host, "LunarLander-v3") == rival_weights(method, host, "LunarLanderContinuous-v3")


@pytest.mark.parametrize("method", METHODS)
def test_the_default_weights_of_td3_are_those_of_the_class(method):
    constructor = inspect.signature(with_method(method, TD3)).parameters
    weights = rival_weights(method, "td3", "Elsewhere-v0")
    assert weights == {name: constructor[name].default for name in weights}


def test_the_published_comparisons_perturb_by_a_fifth():
    assert inspect.signature(caps(PAVE_TD3)).parameters["spatial_sigma"].default == 0.2


@pytest.mark.parametrize("host", ["td3", "sac"])
def test_plain_hosts_have_the_protocol_of_paves_file_with_silu(host):
    pave = yaml.safe_load((OURS / f"pave_{host}.yml").read_text())
    protocol = paper_protocol(host)
    assert protocol.keys() == pave.keys() - {"default"}
    for env_id, entry in protocol.items():
        expected = {name: value for name, value in pave[env_id].items() if name not in PAVES_OWN}
        expected["policy_kwargs"] = expected["policy_kwargs"][:-1] + ", activation_fn=nn.SiLU)"
        assert entry == expected
    # The files for -conf are these entries, and a default
    entries = yaml.safe_load((RESULTS / f"paper_{host}.yml").read_text())
    assert {env_id: entry for env_id, entry in entries.items() if env_id != "default"} == protocol


def test_every_method_is_registered_on_both_hosts_with_and_without_pave():
    register()
    names = {f"{method}_{pave}{host}" for method, host in PUBLISHED for pave in ("", "pave_")}
    assert {rival.name for rival in ZOO_RIVALS} == names <= ALGOS.keys()
    assert (ALGOS["damper_pave_td3"], ALGOS["damper_pave_sac"]) == (damper(PAVE_TD3), damper(PAVE_SAC))
    register(view_only=True)
    assert issubclass(ALGOS["asap_pave_sac"], asap(PAVE_SAC)) and ALGOS["asap_pave_sac"] is not asap(PAVE_SAC)
    register()


CASES = {
    "caps_sac": {"temporal_coef": 1.0, "spatial_coef": 5.0},
    "damper_pave_td3": {"eta": 1.0, "mpr_coef": 2.0, "curv_coef": 2.0},
}


@pytest.mark.parametrize("algo", CASES)
def test_train_and_enjoy(algo, sb3_pave_command, tmp_path, capsys):
    sb3_pave_command("train", "--algo", algo, *SHORT, *NO_EVALUATION, "-params", *SMALL)
    config = saved_config(tmp_path / "logs", algo)
    data = saved_data(tmp_path / "logs", algo)
    for name, value in CASES[algo].items():
        assert config[name] == data[name] == value
    assert ("mpr_coef" in config) == ("pave" in algo)
    assert data["policy_kwargs"]["activation_fn"].__name__ == "SiLU"
    agent = run_folder(tmp_path / "logs", algo) / "Pendulum-v1.zip"
    assert algorithm_name(agent) == algo
    sb3_pave_command("enjoy", "--algo", algo, "--env", "Pendulum-v1", "-f", "logs", "-n", "50", "--no-render")
    sb3_pave_command(
        *("train", "--algo", algo, *SHORT, *NO_EVALUATION, "-i", str(agent), "-params", "learning_starts:10", "batch_size:8"),
        *("temporal_coef:0.25" if algo == "caps_sac" else "eta:0.25",),
    )
    continued = saved_data(tmp_path / "logs", algo, run=2)
    assert continued["temporal_coef" if algo == "caps_sac" else "eta"] == 0.25


def test_an_environment_of_the_zoo_alone_has_the_zoos_entry_with_the_methods_weights(sb3_pave_command, tmp_path):
    env_id = "MountainCarContinuous-v0"
    sb3_pave_command("train", "--algo", "asap_sac", "--env", env_id, "-n", "60", *NO_EVALUATION, "-params", "batch_size:8")
    data = saved_data(tmp_path / "logs", "asap_sac", env_id)
    assert (data["gamma"], data["use_sde"], data["spatial_coef"]) == (0.9999, True, 5.0)


@pytest.mark.parametrize("method", NAMES)
def test_the_space_has_the_hosts_and_the_methods_arguments_with_the_published_values_inside(method):
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    hyperparams = rival_sampler("sac", method, with_pave=False)(trial, 1, 1, {"using_her_replay_buffer": False})
    searched = set(NAMES[method])
    assert hyperparams.keys() & {"temporal_coef", "spatial_coef", "predictor_coef", "eta", "mpr_coef"} == searched
    assert "learning_rate" in hyperparams
    if hasattr(hyperparams_opt, "HYPERPARAMS_CONVERTER"):
        converted = pave_converter("sac")(trial.params)
        assert {name: converted[name] for name in searched} == {name: hyperparams[name] for name in searched}
    with_pave = rival_sampler("td3", method, with_pave=True)(trial, 1, 1, {"using_her_replay_buffer": False})
    assert searched | {"mpr_coef", "vfc_coef", "curv_coef"} <= with_pave.keys()
    for host in ("td3", "sac"):
        for values in PUBLISHED[method, host]:
            for name, value in zip(NAMES[method], values, strict=True):
                low, high = RIVAL_RANGES[method].get(name, (0, 1))
                assert low <= value <= high


def test_every_method_has_a_range_and_a_name_in_pictures():
    assert set(RIVAL_RANGES) == set(METHODS)
    assert all(label(f"{method}_pave_sac") == f"{method.upper()} PAVE SAC" for method in METHODS)


def test_another_version_of_an_environment_has_the_methods_weights_of_the_version_that_was_found():
    assert default_hyperparameters("damper_td3", "Hopper-v6")["eta"] == 1.0  # v5's; the method's default is 0.5
