import argparse
from pathlib import Path

import gymnasium as gym
import pytest
import rl_zoo3
import yaml
from rl_zoo3.exp_manager import ExperimentManager
from torch import nn

import sb3_pave
from sb3_pave.zoo import register
from sb3_pave.zoo.algorithms import ZOO_ALGORITHMS
from sb3_pave.zoo.defaults import find_entry, hyperparams_folder

OURS = hyperparams_folder(sb3_pave.__file__)
ZOOS = hyperparams_folder(rl_zoo3.__file__)
HOSTS = {"pave_td3": "td3", "pave_sac": "sac"}

# The authors' tables: lambda_1, lambda_2, lambda_3
PUBLISHED_WEIGHTS = {
    "pave_td3": {
        "LunarLanderContinuous-v3": (0.1, 0.1, 0.01),
        "Pendulum-v1": (2.0, 0.005, 2.0),
        "Reacher-v5": (0.1, 0.1, 0.01),
        "Ant-v5": (0.1, 0.005, 0.5),
        "Hopper-v5": (0.1, 0.005, 0.5),
        "Walker2d-v5": (0.1, 0.1, 0.01),
        "Humanoid-v5": (0.1, 0.005, 0.5),
    },
    "pave_sac": {
        "LunarLanderContinuous-v3": (0.1, 0.5, 0.05),
        "Pendulum-v1": (0.1, 0.005, 0.5),
        "Reacher-v5": (0.1, 0.0005, 1.0),
        "Ant-v5": (0.1, 0.0005, 1.0),
        "Hopper-v5": (2.0, 0.0005, 3.0),
        "Walker2d-v5": (2.0, 0.005, 2.0),
        "Humanoid-v5": (0.1, 0.0005, 1.0),
    },
}

# The authors' protocol
TD3_PROTOCOL = {
    "policy_kwargs": "dict(net_arch=[400, 300])",
    "learning_rate": 1e-3,
    "batch_size": 256,
    "learning_starts": 10_000,
    "train_freq": 1,
    "gradient_steps": 1,
    "tau": 0.005,
    "noise_type": "normal",
    "noise_std": 0.1,
}
SAC_PROTOCOL = {
    "policy_kwargs": "dict(net_arch=[256, 256])",
    "learning_rate": 1e-3,
    "batch_size": 100,
    "learning_starts": 10_000,
    "train_freq": 50,
    "gradient_steps": 50,
    "tau": 0.005,
    "gamma": 0.99,
    "ent_coef": 0.2,
    "buffer_size": 1_000_000,
}
TIMESTEPS = {"Pendulum-v1": 1e5, "LunarLanderContinuous-v3": 5e5, "Reacher-v5": 5e5}

ENTRIES = [(algo, env_id) for algo in HOSTS for env_id in [*PUBLISHED_WEIGHTS[algo], "LunarLander-v3"]]


def load(file: Path) -> dict:
    return yaml.safe_load(file.read_text())


def weights(entry: dict) -> tuple:
    return entry["mpr_coef"], entry["vfc_coef"], entry["curv_coef"]


@pytest.mark.parametrize(("algo", "env_id"), ENTRIES)
def test_entries_are_the_published_protocol_and_weights(algo, env_id):
    entries = load(OURS / f"{algo}.yml")
    entry = entries[env_id]
    if env_id == "LunarLander-v3":
        assert entry.pop("env_kwargs") == {"continuous": True}
        assert entry == entries["LunarLanderContinuous-v3"]
        return
    # Published weights have their meaning in the units of the task
    expected = {"policy": "MlpPolicy", "n_timesteps": TIMESTEPS.get(env_id, 1e6), "scale_free": False}
    if algo == "pave_td3":
        small = env_id in ("Pendulum-v1", "LunarLanderContinuous-v3")
        expected |= TD3_PROTOCOL | {"gamma": 0.98 if small else 0.99, "buffer_size": 200_000 if small else 1_000_000}
    else:
        expected |= SAC_PROTOCOL
    assert weights(entry) == PUBLISHED_WEIGHTS[algo][env_id]
    assert {key: value for key, value in entry.items() if not key.endswith("_coef") or key == "ent_coef"} == expected


@pytest.mark.parametrize("algo", HOSTS)
def test_default_is_the_zoos_with_the_classes_weights(algo):
    entries = load(OURS / f"{algo}.yml")
    assert entries.keys() == PUBLISHED_WEIGHTS[algo].keys() | {"default", "LunarLander-v3"}
    zoos = load(ZOOS / f"{HOSTS[algo]}.yml").get("default")
    if zoos is None:
        pytest.skip("zoo 2.5 has no defaults")
    assert entries["default"] == zoos


@pytest.mark.parametrize("algorithm", ZOO_ALGORITHMS, ids=lambda algorithm: algorithm.name)
def test_each_algorithm_of_the_table_has_its_file(algorithm):
    # The weights of the class
    assert not {"scale_free", "mpr_coef", "vfc_coef", "curv_coef"} & load(OURS / f"{algorithm.name}.yml")["default"].keys()
    assert find_entry(algorithm.name, algorithm.host, "BipedalWalker-v3").file.name == f"{algorithm.host}.yml"


@pytest.mark.parametrize(
    ("env_id", "folder", "key"),
    [
        ("Pendulum-v1", OURS, "Pendulum-v1"),  # listed by both
        ("Hopper-v5", OURS, "Hopper-v5"),
        ("Hopper-v4", ZOOS, "Hopper-v4"),  # the zoo lists v4
        ("BipedalWalker-v3", ZOOS, "BipedalWalker-v3"),
        ("HalfCheetah-v5", ZOOS, "HalfCheetah-v4"),  # nobody lists v5
        ("Reacher-v4", OURS, "Reacher-v5"),
        ("MyRobot-v0", OURS, "default"),
        ("my_namespace/Hopper-v5", OURS, "default"),
        ("without_version", OURS, "default"),
        ("default", OURS, "default"),
    ],
)
@pytest.mark.parametrize("algo", HOSTS)
def test_where_an_environment_finds_its_hyperparameters(algo, env_id, folder, key):
    file = folder / f"{algo if folder == OURS else HOSTS[algo]}.yml"
    assert find_entry(algo, HOSTS[algo], env_id) == (file, key)


def test_goal_environments_find_the_zoos_entry_whatever_their_version():
    assert find_entry("pave_sac", "sac", "FetchReach-v4") == (ZOOS / "sac.yml", "FetchReach-v1")


def test_of_several_versions_the_latest_counts(tmp_path, monkeypatch):
    for name in ("pave_sac", "sac"):
        (tmp_path / f"{name}.yml").write_text("{default: {}, Robot-v2: {}, Robot-v10: {}, Robot-v9: {}}")
    monkeypatch.setattr("sb3_pave.zoo.defaults.hyperparams_folder", lambda package: tmp_path)
    assert find_entry("pave_sac", "sac", "Robot-v11").key == "Robot-v10"


def test_files_are_found_inside_an_installed_package_and_beside_a_source_tree(tmp_path):
    package = tmp_path / "package"
    (tmp_path / "hyperparams").mkdir()
    package.mkdir()
    assert hyperparams_folder(str(package / "__init__.py")) == tmp_path / "hyperparams"
    (package / "hyperparams").mkdir()
    assert hyperparams_folder(str(package / "__init__.py")) == package / "hyperparams"


def manager(algo: str, env_id: str, log_folder: Path, **kwargs) -> ExperimentManager:
    register()
    return ExperimentManager(argparse.Namespace(env_kwargs=None), algo, env_id, str(log_folder), eval_freq=-1, **kwargs)


@pytest.mark.parametrize(("algo", "env_id"), ENTRIES)
def test_each_entry_makes_a_model(algo, env_id, tmp_path):
    if "v5" in env_id:
        pytest.importorskip("mujoco")
    if "Lunar" in env_id:
        pytest.importorskip("Box2D")
    # The published buffers would fill the memory of a small machine
    model, saved = manager(algo, env_id, tmp_path, hyperparams={"buffer_size": 1000}).setup_experiment()

    entry = load(OURS / f"{algo}.yml")[env_id]
    assert weights(vars(model)) == weights(entry) == weights(saved)
    assert (model.gamma, model.tau, model.batch_size) == (entry["gamma"], entry["tau"], entry["batch_size"])
    assert model.learning_rate == entry["learning_rate"] or model.learning_rate(1.0) == entry["learning_rate"]
    for network in (model.actor, model.critic):
        activations = {type(module) for module in network.modules() if isinstance(module, nn.SiLU | nn.ReLU)}
        assert activations == {nn.SiLU}
    assert isinstance(model.env.action_space, gym.spaces.Box)
    model.env.close()


def test_a_file_that_the_user_names_is_left_alone(tmp_path, capsys):
    config = tmp_path / "pave_sac.yml"
    config.write_text("Pendulum-v1: {n_timesteps: 10, policy: MlpPolicy, vfc_coef: 0.25}\n")
    hyperparams, _ = manager("pave_sac", "Pendulum-v1", tmp_path, config=str(config)).read_hyperparameters()
    assert hyperparams == {"n_timesteps": 10, "policy": "MlpPolicy", "vfc_coef": 0.25}

    missing = str(tmp_path / "hyperparams" / "pave_sac.yml")
    with pytest.raises(FileNotFoundError):
        manager("pave_sac", "Pendulum-v1", tmp_path, config=missing).read_hyperparameters()


def test_the_entry_of_a_rival_is_not_left_in_a_file_that_is_gone(tmp_path):
    experiment = manager("caps_sac", "Pendulum-v1", tmp_path)
    experiment.read_hyperparameters()
    assert Path(experiment.config) == OURS / "pave_sac.yml"


def test_the_zoos_own_algorithms_read_the_zoos_own_files(tmp_path):
    hyperparams, _ = manager("sac", "Pendulum-v1", tmp_path).read_hyperparameters()
    assert hyperparams == load(ZOOS / "sac.yml")["Pendulum-v1"]


def test_the_run_keeps_the_name_of_its_environment_and_says_whose_entry_it_took(tmp_path, capsys):
    pytest.importorskip("mujoco")
    experiment = manager("pave_td3", "HalfCheetah-v5", tmp_path)
    hyperparams, _ = experiment.read_hyperparameters()
    assert experiment.env_name == "HalfCheetah-v5"
    assert hyperparams == load(ZOOS / "td3.yml")["HalfCheetah-v4"]
    out = capsys.readouterr().out
    assert "No hyperparameters for HalfCheetah-v5: using those of HalfCheetah-v4" in out
    assert f"Loading hyperparameters from: {ZOOS / 'td3.yml'}" in out


def test_environment_arguments_of_a_file_reach_evaluation_and_viewing(tmp_path):
    experiment = manager("pave_sac", "LunarLander-v3", tmp_path)
    experiment.read_hyperparameters()
    # args.yml, where record_video and push_to_hub look, is written from the arguments
    assert experiment.env_kwargs == experiment.eval_env_kwargs == experiment.args.env_kwargs == {"continuous": True}

    # What is typed is added: without the file's the algorithm would not fit
    experiment = manager("pave_sac", "LunarLander-v3", tmp_path, env_kwargs={"gravity": -5.0})
    hyperparams, saved_hyperparams = experiment.read_hyperparameters()
    both = {"continuous": True, "gravity": -5.0}
    assert hyperparams["env_kwargs"] == saved_hyperparams["env_kwargs"] == experiment.eval_env_kwargs == both
    experiment = manager("pave_sac", "LunarLander-v3", tmp_path, eval_env_kwargs={"gravity": -5.0})
    experiment.read_hyperparameters()
    assert (experiment.env_kwargs, experiment.eval_env_kwargs) == ({"continuous": True}, both)
    experiment = manager("pave_sac", "LunarLander-v3", tmp_path, env_kwargs={"continuous": False})
    experiment.read_hyperparameters()
    assert experiment.env_kwargs == {"continuous": False}


def test_environment_arguments_of_a_users_file_reach_evaluation_and_viewing(tmp_path):
    """``tune`` writes such files; the zoo would evaluate in another environment than it trains in."""
    experiment = manager("pave_td3", "LunarLander-v3", tmp_path, config=str(OURS / "pave_td3.yml"))
    experiment.read_hyperparameters()
    assert experiment.env_kwargs == experiment.eval_env_kwargs == experiment.args.env_kwargs == {"continuous": True}
