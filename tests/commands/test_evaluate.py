"""The command on folders laid out as RL Zoo does it, and on zip files."""

import json

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import DDPG, PPO, SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_pave.commands.evaluate import main
from sb3_pave.evaluation.agents import AgentError, algorithm_name, find_runs, from_zip
from sb3_pave.evaluation.rollout import record_rollout

pytest.importorskip("rl_zoo3")
pytest.importorskip("rliable")
yaml = pytest.importorskip("yaml")

FAST = ["--env", "Pendulum-v1", "-n", "1", "--device", "cpu", "--no-progress"]


def small(algorithm, env="Pendulum-v1", **kwargs):
    policy_kwargs = {"net_arch": [8], "activation_fn": nn.SiLU}
    return algorithm("MlpPolicy", env, policy_kwargs=policy_kwargs, device="cpu", **kwargs)


def save_run(folder, algo, number, model, config=None, arguments=None):
    """A run as the zoo leaves it."""
    path = folder / algo / f"Pendulum-v1_{number}"
    (path / "Pendulum-v1").mkdir(parents=True)
    (path / "Pendulum-v1" / "config.yml").write_text(yaml.dump(config or {"policy": "MlpPolicy"}))
    (path / "Pendulum-v1" / "args.yml").write_text(yaml.dump({"env_kwargs": arguments}))
    model.save(path / "Pendulum-v1.zip")
    return path


@pytest.fixture
def logs(tmp_path):
    save_run(tmp_path / "logs", "sac", 1, small(SAC, seed=0))
    save_run(tmp_path / "logs", "sac", 3, small(SAC, seed=1))
    save_run(tmp_path / "logs", "td3", 1, small(TD3, seed=0))
    return tmp_path / "logs"


def test_all_runs_are_measured_on_the_episodes_of_the_library(logs, tmp_path, capsys):
    main([*FAST, "--algo", "sac", "td3", "-f", str(logs), "-o", str(tmp_path / "out"), "--seed", "4"])
    report = json.loads((tmp_path / "out.json").read_text())
    assert [(run["algorithm"], run["run"]) for run in report["runs"]] == [
        ("sac", "Pendulum-v1_1"),
        ("sac", "Pendulum-v1_3"),
        ("td3", "Pendulum-v1_1"),
    ]
    direct = record_rollout(small(SAC, seed=1), Monitor(gym.make("Pendulum-v1")), 1, seed=4)
    assert report["runs"][1]["episodes"]["return"] == [direct.episodes[0].total_reward]
    assert report["settings"]["control_rate"] == pytest.approx(20.0)  # Pendulum's step is 0.05 s
    printed = capsys.readouterr().out
    assert "deterministic" in printed and "2 x 1" in printed


def test_everything_at_once_with_a_reference(logs, tmp_path):
    options = ["--robustness", "--robustness-episodes", "1", "--noise", "0.1", "--geometry", "--surface"]
    command = [*FAST, "--algo", "sac", "td3", "--exp-id", "1", "-f", str(logs), *options, "--reference", "td3"]
    main([*command, "-o", str(tmp_path / "out")])
    sac, td3 = json.loads((tmp_path / "out.json").read_text())["runs"]
    assert sac["algorithm"] == "sac"
    assert sac["surface"]["state_axis"] == td3["surface"]["state_axis"]
    assert sac["surface"]["heights"] != td3["surface"]["heights"]
    assert [entry["noise_level"] for entry in sac["robustness"]] == [0.0, 0.1]
    assert sac["robustness"][0]["episodes"]["return"] == sac["episodes"]["return"]
    assert sac["geometry"]["M_sup"] > 0


def test_a_ppo_agent_is_measured_as_far_as_it_goes(tmp_path):
    small(PPO, seed=0, n_steps=8, batch_size=8).save(tmp_path / "agent.zip")
    main([str(tmp_path / "agent.zip"), *FAST, "--geometry", "-o", str(tmp_path / "out")])
    (run,) = json.loads((tmp_path / "out.json").read_text())["runs"]
    assert run["algorithm"] == "ppo" and run["run"] == "agent"
    assert set(run["geometry"]) == {"actor_jacobian_mean", "actor_jacobian_sup", "at_bound_rate"}


@pytest.mark.parametrize("by_hand", [True, False])
def test_saved_normalisation_is_used(tmp_path, by_hand):
    env = VecNormalize(make_vec_env("Pendulum-v1"))
    env.obs_rms.mean, env.obs_rms.var = np.array([0.5, 0.5, 2.0]), np.array([1.0, 4.0, 9.0])
    model = small(SAC, env, seed=0)
    path = save_run(tmp_path, "sac", 1, model, {"policy": "MlpPolicy", "normalize": not by_hand})
    statistics = path / "Pendulum-v1" / "vecnormalize.pkl"
    env.save(statistics)
    options = ["--vec-normalize", str(statistics)] if by_hand else []
    main([str(path / "Pendulum-v1.zip"), *FAST, *options, "-o", str(tmp_path / "out")])
    (run,) = json.loads((tmp_path / "out.json").read_text())["runs"]
    env.training = False
    direct = record_rollout(model, env, 1, seed=0)
    np.testing.assert_allclose(run["trace"]["actions"], direct.episodes[0].actions, atol=1e-6)


def test_arguments_of_the_environment_come_from_the_run(tmp_path):
    path = save_run(tmp_path, "sac", 1, small(SAC, seed=0), arguments={"g": 3.5})
    env = from_zip(path / "Pendulum-v1.zip", "Pendulum-v1").make_env("Pendulum-v1")
    assert env.get_attr("g") == [3.5]


@pytest.mark.parametrize(("algorithm", "name"), [(SAC, "sac"), (TD3, "td3"), (DDPG, "td3"), (PPO, "ppo")])
def test_the_algorithm_is_read_from_the_file(tmp_path, algorithm, name):
    kwargs = {"n_steps": 8, "batch_size": 8} if algorithm is PPO else {}
    small(algorithm, **kwargs).save(tmp_path / "agent.zip")
    assert algorithm_name(tmp_path / "agent.zip") == name


def test_a_pave_file_is_told_from_a_plain_one(tmp_path):
    sb3_pave = pytest.importorskip("sb3_pave")
    small(sb3_pave.PAVE_SAC).save(tmp_path / "agent.zip")
    assert algorithm_name(tmp_path / "agent.zip") == "pave_sac"
    assert from_zip(tmp_path / "agent.zip", "Pendulum-v1").load("cpu").replay_buffer.buffer_size == 1


def test_a_missing_run_is_named(logs):
    with pytest.raises(AgentError, match="No run of ppo on Pendulum-v1"):
        find_runs(logs, "ppo", "Pendulum-v1")
    with pytest.raises(AgentError, match=r"Run 2 of sac.*Pendulum-v1_2"):
        find_runs(logs, "sac", "Pendulum-v1", [2])
    (logs / "sac" / "Pendulum-v1_3" / "Pendulum-v1.zip").unlink()
    with pytest.raises(AgentError, match=r"Run 3 of sac.*Pendulum-v1_3"):
        find_runs(logs, "sac", "Pendulum-v1")
    assert [agent.run for agent in find_runs(logs, "sac", "Pendulum-v1", [1])] == ["Pendulum-v1_1"]


def test_a_broken_file_is_named_and_nothing_is_saved(logs, tmp_path, capsys):
    (logs / "sac" / "Pendulum-v1_3" / "Pendulum-v1.zip").write_text("broken")
    with pytest.raises(SystemExit) as stop:
        main([*FAST, "--algo", "sac", "-f", str(logs), "-o", str(tmp_path / "out")])
    assert stop.value.code == 1
    assert "Pendulum-v1_3" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env", "Pendulum-v1"], "what to measure"),
        ([*FAST, "--algo", "sac", "-n", "0"], "at least 1"),
        ([*FAST, "--algo", "sac", "--critic", "best"], "--critic"),
        ([*FAST, "--algo", "sac", "--vec-normalize", "x.pkl"], "zip files"),
        ([*FAST, "a.zip", "b.zip", "c.zip", "--algo", "sac", "td3"], "3 zip files"),
        ([*FAST, "--algo", "sac", "--noise", "-1"], "negative"),
    ],
)
def test_bad_arguments_are_usage_errors(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_reference_that_is_not_measured_is_refused(logs, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([*FAST, "--algo", "sac", "-f", str(logs), "--reference", "td3", "-o", str(tmp_path / "out")])
    assert "td3 is not among" in capsys.readouterr().err


def test_an_existing_report_is_kept_before_anything_is_measured(logs, tmp_path, capsys):
    (tmp_path / "out.json").write_text("mine")
    with pytest.raises(SystemExit):
        main([*FAST, "--algo", "nonsense", "-f", str(logs), "-o", str(tmp_path / "out")])
    assert "exists" in capsys.readouterr().err
    assert (tmp_path / "out.json").read_text() == "mine"
