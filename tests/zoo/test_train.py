"""The zoo's own commands on our algorithms, through the command line."""

import shutil
import subprocess
import sys

import numpy as np
import optuna
import pytest
import yaml
from rl_zoo3 import hyperparams_opt
from rl_zoo3.utils import ALGOS
from stable_baselines3 import SAC, TD3, HerReplayBuffer
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.save_util import load_from_pkl, load_from_zip_file
from stable_baselines3.common.vec_env import SubprocVecEnv
from torch import nn

from sb3_pave import PAVE_SAC, PAVE_TD3
from sb3_pave.zoo import register
from sb3_pave.zoo.algorithms import ZOO_ALGORITHMS
from tests.conftest import ALGORITHMS, SHORT, SMALL

CLASSES = {"pave_td3": PAVE_TD3, "pave_sac": PAVE_SAC}
NO_EVALUATION = ("--eval-freq", "-1")


def run_folder(logs, algo, env_id="Pendulum-v1", run=1):
    return logs / algo / f"{env_id}_{run}"


def saved_data(logs, algo, env_id="Pendulum-v1", run=1):
    """What the zip of a run holds besides parameters."""
    data, _, _ = load_from_zip_file(run_folder(logs, algo, env_id, run) / f"{env_id}.zip")
    return data


def saved_config(logs, algo, env_id="Pendulum-v1", run=1, name="config.yml"):
    return yaml.load((run_folder(logs, algo, env_id, run) / env_id / name).read_text(), Loader=yaml.UnsafeLoader)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_train_leaves_what_the_zoo_leaves(algo, logs):
    folder = run_folder(logs, algo)
    names = {path.name for path in folder.iterdir()}
    assert names >= {"Pendulum-v1.zip", "best_model.zip", "rl_model_100_steps.zip", "evaluations.npz", "replay_buffer.pkl"}
    assert np.isfinite(np.load(folder / "evaluations.npz")["results"]).all()

    model = CLASSES[algo].load(folder / "Pendulum-v1.zip")
    config = saved_config(logs, algo)
    assert (model.mpr_coef, model.vfc_coef, model.curv_coef) == (
        config["mpr_coef"],
        config["vfc_coef"],
        config["curv_coef"],
    )
    assert config["vfc_coef"] == 0.005  # of our file, not the class's default
    assert model._n_updates > 0
    assert any(isinstance(module, nn.SiLU) for module in model.critic.modules())


@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("which", [[], ["--load-best"], ["--load-checkpoint", "100"]])
def test_enjoy_plays_without_allocating_the_buffer(algo, which, logs, sb3_pave_command, capsys, monkeypatch):
    allocated = []
    allocate = ReplayBuffer.__init__

    def record(buffer, buffer_size, *args, **kwargs):
        allocated.append(buffer_size)
        allocate(buffer, buffer_size, *args, **kwargs)

    monkeypatch.setattr(ReplayBuffer, "__init__", record)
    sb3_pave_command("enjoy", "--algo", algo, "--env", "Pendulum-v1", "-f", logs, "-n", "200", "--no-render", *which)

    assert "Mean reward: -" in capsys.readouterr().out
    assert allocated == [1]


@pytest.mark.parametrize("algorithm", ZOO_ALGORITHMS, ids=lambda algorithm: algorithm.name)
def test_each_algorithm_of_the_table_trains_without_conf(algorithm, sb3_pave_command, tmp_path):
    sb3_pave_command("train", "--algo", algorithm.name, *SHORT, *NO_EVALUATION, "-params", *SMALL, "policy_kwargs:dict()")
    model = algorithm.pave_class.load(run_folder(tmp_path / "logs", algorithm.name) / "Pendulum-v1.zip")
    assert model._n_updates > 0
    # What it is compared with, and where its hyperparameters and search space come from
    assert issubclass(algorithm.pave_class, ALGOS[algorithm.host])
    assert algorithm.pave_class is not ALGOS[algorithm.host]


def test_training_from_a_users_script(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["script.py", "--algo", "pave_sac", *SHORT, *NO_EVALUATION, "-f", str(tmp_path)])
    sys.argv += ["-params", *SMALL]
    from rl_zoo3.train import train

    register()
    train()
    assert saved_data(tmp_path, "pave_sac")["vfc_coef"] == 0.005


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_params_override_the_file(algo, sb3_pave_command, tmp_path):
    params = [*SMALL, "mpr_coef:0.7", "curv_delta:0.2", "policy_kwargs:dict(net_arch=[16])"]
    sb3_pave_command("train", "--algo", algo, *SHORT, *NO_EVALUATION, "-params", *params)
    data = saved_data(tmp_path / "logs", algo)
    assert (data["mpr_coef"], data["curv_delta"], data["vfc_coef"]) == (0.7, 0.2, 0.005)
    assert data["policy_kwargs"]["activation_fn"] is nn.SiLU


@pytest.mark.parametrize(("algo", "host"), [("pave_td3", "td3"), ("pave_sac", "sac")])
def test_conf_takes_the_zoos_files(algo, host, sb3_pave_command, tmp_path):
    import rl_zoo3

    conf = f"{rl_zoo3.__path__[0]}/hyperparams/{host}.yml"
    sb3_pave_command("train", "--algo", algo, "-conf", conf, *SHORT, *NO_EVALUATION, "-params", *SMALL)
    data = saved_data(tmp_path / "logs", algo)
    # Nothing in the zoo's file speaks of PAVE: the class's defaults
    assert (data["mpr_coef"], data["vfc_coef"], data["curv_coef"]) == (0.5, 0.005, 0.03)


def test_conf_takes_a_users_file(sb3_pave_command, tmp_path):
    entry = {"n_timesteps": 200, "policy": "MlpPolicy", "learning_starts": 190, "buffer_size": 500, "mpr_coef": 0.03}
    (tmp_path / "mine.yml").write_text(yaml.dump({"Pendulum-v1": entry}))
    sb3_pave_command("train", "--algo", "pave_sac", "-conf", "mine.yml", "--env", "Pendulum-v1", *NO_EVALUATION)
    data = saved_data(tmp_path / "logs", "pave_sac")
    assert (data["mpr_coef"], data["buffer_size"], data["num_timesteps"]) == (0.03, 500, 200)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_training_continues_with_its_buffer_and_new_weights(algo, logs, sb3_pave_command, tmp_path, capsys):
    agent = run_folder(logs, algo) / "Pendulum-v1.zip"
    params = [*SMALL, "mpr_coef:0.3", "learning_starts:0"]
    sb3_pave_command(
        *("train", "--algo", algo, *SHORT, *NO_EVALUATION, "-i", agent, "-params", *params, "--save-replay-buffer")
    )
    before, after = saved_data(logs, algo), saved_data(tmp_path / "logs", algo)
    assert before["mpr_coef"] != after["mpr_coef"] == 0.3
    assert after["_n_updates"] > before["_n_updates"]
    assert "Loading replay buffer" in capsys.readouterr().out
    sizes = [load_from_pkl(run_folder(folder, algo) / "replay_buffer.pkl").size() for folder in (logs, tmp_path / "logs")]
    assert sizes == [200, 400]


def test_pave_an_agent_that_the_zoo_trained(sb3_pave_command, tmp_path):
    params = ("-params", *SMALL, "policy_kwargs:dict(activation_fn=nn.SiLU)", "ent_coef:0.2")
    sb3_pave_command("train", "--algo", "sac", *SHORT, *NO_EVALUATION, *params)
    agent = run_folder(tmp_path / "logs", "sac") / "Pendulum-v1.zip"
    before = saved_data(tmp_path / "logs", "sac")
    sb3_pave_command("train", "--algo", "pave_sac", *SHORT, *NO_EVALUATION, "-i", agent, *params)
    after = saved_data(tmp_path / "logs", "pave_sac")
    assert "mpr_coef" not in before
    assert after["vfc_coef"] == 0.005
    assert after["_n_updates"] > before["_n_updates"]


def test_env_kwargs_gym_packages_and_worker_processes(sb3_pave_command, tmp_path, monkeypatch):
    (tmp_path / "my_envs.py").write_text(
        "import gymnasium as gym\n"
        "gym.register('MyPendulum-v0', 'gymnasium.envs.classic_control:PendulumEnv', max_episode_steps=50)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    workers = []
    start = SubprocVecEnv.__init__

    def record(vec_env, env_fns, *args, **kwargs):
        start(vec_env, env_fns, *args, **kwargs)
        workers.append(vec_env.get_attr("unwrapped"))

    monkeypatch.setattr(SubprocVecEnv, "__init__", record)
    sb3_pave_command(
        *("train", "--algo", "pave_td3", "--env", "MyPendulum-v0", "--gym-packages", "my_envs", *NO_EVALUATION),
        *("--vec-env", "subproc", "--env-kwargs", "g:5.0", "-n", "200", "-params", "n_envs:2", "learning_starts:150"),
    )
    (envs,) = workers
    assert [env.g for env in envs] == [5.0, 5.0]
    assert saved_data(tmp_path / "logs", "pave_td3", "MyPendulum-v0")["num_timesteps"] == 200


def test_an_environment_that_only_the_zoo_lists(sb3_pave_command, tmp_path):
    """The zoo's entry has gSDE, a network and an entropy coefficient of its own."""
    env = ("--env", "MountainCarContinuous-v0")
    sb3_pave_command("train", "--algo", "pave_sac", *env, "-n", "100", *NO_EVALUATION, "-params", "batch_size:8")
    data = saved_data(tmp_path / "logs", "pave_sac", env[1])
    assert data["use_sde"]
    assert data["policy_kwargs"]["net_arch"] == [64, 64]
    assert data["policy_kwargs"]["activation_fn"] is nn.SiLU
    assert (data["gamma"], data["mpr_coef"]) == (0.9999, 0.5)


def test_a_goal_environment_with_the_zoos_her_entry(sb3_pave_command, tmp_path, capsys):
    env = ("--env", "FetchReach-v1", "--gym-packages", "tests.zoo.environments")
    sb3_pave_command(
        *("train", "--algo", "pave_sac", *env, "-n", "200", "--eval-freq", "100", "--eval-episodes", "1"),
        *("-params", "learning_starts:150", "batch_size:8", "buffer_size:1000"),
    )
    data = saved_data(tmp_path / "logs", "pave_sac", env[1])
    assert data["replay_buffer_class"] is HerReplayBuffer
    assert data["_n_updates"] > 0
    sb3_pave_command("enjoy", "--algo", "pave_sac", *env, "-f", "logs", "-n", "100", "--no-render")
    assert "Success rate" in capsys.readouterr().out


def test_lunar_lander_under_its_discrete_name(sb3_pave_command, tmp_path):
    pytest.importorskip("Box2D")
    sb3_pave_command(
        *("train", "--algo", "pave_td3", "--env", "LunarLander-v3", "-n", "200", "--eval-freq", "100"),
        *("--eval-episodes", "1", "-params", *SMALL),
    )
    assert saved_config(tmp_path / "logs", "pave_td3", "LunarLander-v3", name="args.yml")["env_kwargs"] == {"continuous": True}
    sb3_pave_command("enjoy", "--algo", "pave_td3", "--env", "LunarLander-v3", "-f", "logs", "-n", "50", "--no-render")


@pytest.mark.parametrize(("algo", "storage"), [("pave_td3", "sqlite:///trials.db"), ("pave_sac", "trials.log")])
def test_search_then_retrain_a_trial(algo, storage, sb3_pave_command, tmp_path):
    loads_trials = hasattr(hyperparams_opt, "HYPERPARAMS_CONVERTER")
    if storage.endswith(".log") and not loads_trials:
        pytest.skip("zoo 2.5 writes no journals")
    study = ("--storage", storage, "--study-name", "study")
    short = (*SHORT, "-params", "learning_starts:190")
    sb3_pave_command(
        *("train", "--algo", algo, *short, "-optimize", *study, "--n-trials", "2", "--n-evaluations", "1"),
        *("--sampler", "random", "--pruner", "none", "--no-optim-plots"),
    )
    backend = storage
    if storage.endswith(".log"):
        backend = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(storage))
    trials = optuna.load_study(study_name="study", storage=backend).trials
    assert [trial.state for trial in trials] == [optuna.trial.TrialState.COMPLETE] * 2

    if not loads_trials:
        pytest.skip("zoo 2.5 loads no trials")
    sb3_pave_command("train", "--algo", algo, *short, *NO_EVALUATION, *study, "--trial-id", "1")
    # The search has taken the first run's folder
    data = saved_data(tmp_path / "logs", algo, run=2)
    names = ("mpr_coef", "vfc_coef", "curv_coef", "tau")
    assert {name: data[name] for name in names} == {name: trials[1].params[name] for name in names}
    assert data["gamma"] == 1 - trials[1].params["one_minus_gamma"]
    assert data["policy_kwargs"]["activation_fn"] is nn.SiLU


def test_a_diverging_trial_is_pruned(sb3_pave_command, tmp_path, capsys):
    # With no trial left, the zoo finds no best one
    with pytest.raises(ValueError):
        sb3_pave_command(
            *("train", "--algo", "pave_td3", "--env", "BrokenReward-v0", "--gym-packages", "tests.zoo.environments"),
            *("-n", "200", "-params", "learning_starts:10", "buffer_size:1000", "-optimize", "--n-trials", "1"),
            *("--storage", "sqlite:///trials.db", "--study-name", "study", "--n-evaluations", "1", "--no-optim-plots"),
            *("--sampler", "random"),
        )
    (trial,) = optuna.load_study(study_name="study", storage="sqlite:///trials.db").trials
    assert trial.state == optuna.trial.TrialState.PRUNED
    assert "PAVE's" in capsys.readouterr().out


def test_the_zoos_parallel_training_is_refused_with_our_message(sb3_pave_command):
    with pytest.raises(ValueError, match="ParallelTrainCallback"):
        sb3_pave_command(
            *("train", "--algo", "pave_sac", *SHORT, *NO_EVALUATION, "-params", *SMALL),
            "callback:'rl_zoo3.callbacks.ParallelTrainCallback'",
        )


def test_record_video(logs, sb3_pave_command, tmp_path):
    pytest.importorskip("moviepy")
    arguments = ("--algo", "pave_td3", "--env", "Pendulum-v1", "-f", logs, "-o", tmp_path, "-n", "5")
    sb3_pave_command("record_video", *arguments)
    assert [path.name for path in tmp_path.glob("*.mp4")] == ["final-model-pave_td3-Pendulum-v1-step-0-to-step-5.mp4"]


class Hub:
    """The Hugging Face Hub, as far as push_to_hub uses it, without a network."""

    def create_repo(self, repo_id, **kwargs):
        return f"https://hub/{repo_id}"

    def snapshot_download(self, repo_id, local_dir):
        local_dir.mkdir(parents=True)

    def upload_folder(self, repo_id, folder_path, commit_message):
        shutil.copytree(folder_path, "uploaded")


def test_push_to_hub_uploads_agent_card_and_video(logs, sb3_pave_command, tmp_path, monkeypatch):
    pytest.importorskip("moviepy")
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    where = ("--algo", "pave_sac", "--env", "Pendulum-v1", "-f", logs, "-n", "5")
    sb3_pave_command("push_to_hub", *where, "-orga", "me")
    uploaded = {path.name for path in (tmp_path / "uploaded").iterdir()}
    assert uploaded >= {"pave_sac-Pendulum-v1.zip", "README.md", "replay.mp4", "config.yml", "results.json"}
    assert "# **PAVE_SAC** Agent playing **Pendulum-v1**" in (tmp_path / "uploaded" / "README.md").read_text()
    model = PAVE_SAC.load(tmp_path / "uploaded" / "pave_sac-Pendulum-v1.zip")
    assert model.vfc_coef == 0.005


@pytest.fixture
def single_agent(logs, tmp_path):
    """A log folder with a run that holds the final agent alone."""
    source, copy = run_folder(logs, "pave_sac"), run_folder(tmp_path / "single", "pave_sac")
    shutil.copytree(source / "Pendulum-v1", copy / "Pendulum-v1")
    shutil.copy(source / "Pendulum-v1.zip", copy)
    return tmp_path / "single"


def test_record_training_records_through_its_child_processes(single_agent, sb3_pave_command):
    pytest.importorskip("moviepy")
    sb3_pave_command("record_training", "--algo", "pave_sac", "--env", "Pendulum-v1", "-f", single_agent, "-n", "5")
    videos = {path.name for path in (run_folder(single_agent, "pave_sac") / "videos").iterdir()}
    assert videos == {"final-model-pave_sac-Pendulum-v1-step-0-to-step-5.mp4", "training.mp4"}


def test_benchmark_evaluates_through_its_child_processes(single_agent, sb3_pave_command, tmp_path):
    sb3_pave_command(
        "benchmark", "--log-dir", single_agent, "--benchmark-dir", "bench", "-n", "200", "--no-hub", "--test-mode"
    )
    row = next(line for line in (tmp_path / "bench" / "benchmark.md").read_text().splitlines() if "pave_sac" in line)
    assert [cell.strip() for cell in row.strip("|").split("|")][:2] == ["pave_sac", "Pendulum-v1"]


def test_plots_of_the_zoo(logs, sb3_pave_command, tmp_path, monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    shown = []
    monkeypatch.setattr(pyplot, "show", lambda: shown.append(len(pyplot.gcf().axes[0].lines)))
    for algo in ALGORITHMS:  # plot_from_file compares distributions over runs
        for run in (1, 2):
            shutil.copytree(run_folder(logs, algo), run_folder(tmp_path / "runs", algo, run=run))

    sb3_pave_command("plot_train", "-a", "pave_sac", "-e", "Pendulum-v1", "-f", "runs", "-w", "1")
    pyplot.close("all")
    sb3_pave_command("all_plots", "-a", *ALGORITHMS, "-e", "Pendulum-v1", "-f", "runs", "-o", "results", "--no-million")
    pyplot.close("all")
    sb3_pave_command("plot_from_file", "-i", "results.pkl", "--no-million")
    pyplot.close("all")
    assert len(shown) == 3
    assert shown[1:] == [2, 2]


def test_the_unmodified_zoo_command_trains_with_pave(tmp_path):
    command = [sys.executable, "-m", "rl_zoo3.train", "--algo", "td3", "--gym-packages", "sb3_pave.zoo.drop_in"]
    arguments = [*SHORT, *NO_EVALUATION, "-params", *SMALL, "mpr_coef:0.2"]
    done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    data = saved_data(tmp_path / "logs", "td3")
    assert (data["mpr_coef"], data["vfc_coef"]) == (0.2, 0.005)
    # Plain SB3 and the zoo know nothing of it and play it
    assert ALGOS["td3"] is TD3
    agent = run_folder(tmp_path / "logs", "td3") / "Pendulum-v1.zip"
    assert TD3.load(agent).predict(np.zeros(3, dtype=np.float32))[0].shape == (1,)
    assert issubclass(PAVE_SAC, SAC)
