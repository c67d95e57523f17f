"""The command on folders laid out as RL Zoo does it, and on zip files."""

import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control import PendulumEnv
from stable_baselines3 import A2C, DDPG, PPO, SAC, TD3
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecNormalize, unwrap_vec_normalize
from torch import nn

from sb3_pave.commands import evaluate as evaluate_command
from sb3_pave.commands.evaluate import main
from sb3_pave.commands.plot import main as plot
from sb3_pave.evaluation.agents import Agent, check_spaces, from_zip
from sb3_pave.evaluation.errors import AgentError
from sb3_pave.evaluation.measurement import Conditions
from sb3_pave.evaluation.output_path import output_path
from sb3_pave.evaluation.report import FORMAT
from sb3_pave.evaluation.report_files import SUFFIXES
from sb3_pave.evaluation.rollout import record_rollout
from sb3_pave.evaluation.zip_files import algorithm_name, load_model
from sb3_pave.evaluation.zip_notes import unused_statistics
from sb3_pave.evaluation.zoo_runs import find_runs

pytest.importorskip("rl_zoo3")
pytest.importorskip("rliable")
yaml = pytest.importorskip("yaml")

FAST = ["--env", "Pendulum-v1", "-n", "1", "--device", "cpu", "--no-progress"]
QUICK = ["--robustness-episodes", "1"]


def small(algorithm, env="Pendulum-v1", **kwargs):
    policy_kwargs = {"net_arch": [8], "activation_fn": nn.SiLU}
    return algorithm("MlpPolicy", env, policy_kwargs=policy_kwargs, device="cpu", **kwargs)


def contrib_agent(name):
    contrib = pytest.importorskip("sb3_contrib")
    policy = "MlpLstmPolicy" if name == "RecurrentPPO" else "MlpPolicy"
    more = {"TRPO": {"n_steps": 8, "batch_size": 8}, "RecurrentPPO": {"n_steps": 8, "batch_size": 8}}.get(name, {})
    return getattr(contrib, name)(policy, "Pendulum-v1", policy_kwargs={"net_arch": [8]}, device="cpu", seed=0, **more)


def save_run(folder, algo, number, model, config=None, arguments=None, **more):
    """A run as the zoo leaves it; arguments are those of the environment, then those of its training."""
    path = folder / algo / f"Pendulum-v1_{number}"
    (path / "Pendulum-v1").mkdir(parents=True)
    (path / "Pendulum-v1" / "config.yml").write_text(yaml.dump(config or {"policy": "MlpPolicy"}))
    (path / "Pendulum-v1" / "args.yml").write_text(yaml.dump({"env_kwargs": arguments, **more}))
    model.save(path / "Pendulum-v1.zip")
    return path


@pytest.fixture
def logs(tmp_path):
    save_run(tmp_path / "logs", "sac", 1, small(SAC, seed=0))
    save_run(tmp_path / "logs", "sac", 3, small(SAC, seed=1))
    save_run(tmp_path / "logs", "td3", 1, small(TD3, seed=0))
    return tmp_path / "logs"


def test_all_runs_are_measured_on_the_episodes_of_the_library(logs, tmp_path, capsys):
    main([*FAST, "--algo", "sac", "td3", "-f", str(logs), "-o", str(tmp_path / "out"), "--seed", "4", "--cutoff", "1"])
    report = json.loads((tmp_path / "out.json").read_text())
    assert [(run["algorithm"], run["run"]) for run in report["runs"]] == [
        ("sac", "Pendulum-v1_1"),
        ("sac", "Pendulum-v1_3"),
        ("td3", "Pendulum-v1_1"),
    ]
    direct = record_rollout(small(SAC, seed=1), Monitor(gym.make("Pendulum-v1")), 1, seed=4)
    assert report["runs"][1]["episodes"]["return"] == [direct.episodes[0].total_reward]
    shares = report["runs"][1]["episodes"]["high_frequency_share"]
    assert shares == pytest.approx(direct.smoothness(20.0, cutoff=1.0)["high_frequency_share"])
    assert shares != pytest.approx(direct.smoothness(20.0)["high_frequency_share"])
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


@pytest.mark.parametrize("algorithm", [SAC, TD3, DDPG, PPO, A2C])
def test_the_algorithm_is_read_from_the_file(tmp_path, algorithm):
    kwargs = {PPO: {"n_steps": 8, "batch_size": 8}}.get(algorithm, {})
    small(algorithm, **kwargs).save(tmp_path / "agent.zip")
    assert algorithm_name(tmp_path / "agent.zip") == algorithm.__name__.lower()
    assert type(load_model(tmp_path / "agent.zip", device="cpu")) is algorithm


@pytest.mark.parametrize(
    ("algorithm", "name"),
    [("TQC", "tqc"), ("CrossQ", "crossq"), ("TRPO", "trpo"), ("ARS", "ars"), ("RecurrentPPO", "ppo_lstm")],
)
def test_contribs_algorithms_are_told_apart_too(tmp_path, algorithm, name):
    contrib_agent(algorithm).save(tmp_path / "agent.zip")
    assert algorithm_name(tmp_path / "agent.zip") == name
    assert type(load_model(tmp_path / "agent.zip", device="cpu")).__name__ == algorithm


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
    assert [agent.run for agent in find_runs(logs, "sac", "Pendulum-v1", [1, 1])] == ["Pendulum-v1_1"]  # once


def test_a_run_without_a_model_yet_does_not_cost_the_others(logs, tmp_path, capsys):
    """All runs of a folder in which one still trains, its evaluations half written."""
    (logs / "sac" / "Pendulum-v1_3" / "Pendulum-v1.zip").unlink()
    (logs / "sac" / "Pendulum-v1_1" / "evaluations.npz").write_bytes(b"PK\x03\x04")
    main([*FAST, "--algo", "sac", "td3", "-f", str(logs), "-o", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out.json").read_text())
    assert [(run["algorithm"], run["run"]) for run in report["runs"]] == [("sac", "Pendulum-v1_1"), ("td3", "Pendulum-v1_1")]
    missing, half = report["notes"]
    assert "Run 3 of sac" in missing and "sac Pendulum-v1_1: no training curves" in half
    assert "Run 3 of sac" in capsys.readouterr().out and "Run 3 of sac" in (tmp_path / "out.md").read_text()
    for run in logs.glob("sac/*/Pendulum-v1.zip"):
        run.unlink()
    with pytest.raises(SystemExit):
        main([*FAST, "--algo", "sac", "-f", str(logs), "-o", str(tmp_path / "none")])
    assert "has a model yet" in capsys.readouterr().err


def test_a_broken_file_is_named_and_nothing_is_saved(logs, tmp_path, capsys):
    (logs / "sac" / "Pendulum-v1_3" / "Pendulum-v1.zip").write_text("broken")
    with pytest.raises(SystemExit) as stop:
        main([*FAST, "--algo", "sac", "-f", str(logs), "-o", str(tmp_path / "out")])
    assert stop.value.code == 1
    assert "Pendulum-v1_3" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_what_is_broken_is_found_before_the_first_episode(logs, tmp_path, monkeypatch):
    (logs / "td3" / "Pendulum-v1_1" / "Pendulum-v1.zip").write_text("broken")
    monkeypatch.setattr("sb3_pave.evaluation.measurement.record_rollout", lambda *_: pytest.fail("measured in vain"))
    for more in ([], ["--exp-id", "1", "--cutoff", "1000"]):
        with pytest.raises(SystemExit):
            main([*FAST, "--algo", "sac", "td3", "-f", str(logs), "-o", str(tmp_path / "out"), *more])


@pytest.mark.parametrize(("name", "measured"), [("ARS", {"at_bound_rate"}), ("RecurrentPPO", {"at_bound_rate"})])
def test_an_agent_without_geometry_costs_the_others_nothing_and_is_named(tmp_path, name, measured):
    contrib_agent(name).save(tmp_path / "other.zip")
    small(SAC, seed=0).save(tmp_path / "sac.zip")
    options = ["--geometry", "--surface", "--robustness", "--noise", "0.1", "--robustness-episodes", "1"]
    main([str(tmp_path / "other.zip"), str(tmp_path / "sac.zip"), *FAST, *options, "-o", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out.json").read_text())
    other, sac = report["runs"]
    assert set(other["geometry"]) == measured and "surface" not in other
    assert len(other["robustness"]) == 2 and other["episodes"]["sm"][0] >= 0
    assert sac["geometry"]["M_sup"] > 0 and np.shape(sac["surface"]["heights"]) == (50, 50)
    assert all("other" in note for note in report["notes"])
    assert any("no Jacobian of its actor" in note for note in report["notes"])
    assert any("no surface" in note for note in report["notes"])


@pytest.mark.filterwarnings("ignore::UserWarning")  # Gymnasium's, on the NaN that Pendulum passes on
def test_a_policy_that_has_diverged_is_named_and_the_others_are_measured(tmp_path, capsys):
    sick = small(TD3, seed=0)
    sick.actor.mu[0].weight.data[:] = np.nan
    sick.save(tmp_path / "sick.zip")
    small(SAC, seed=0).save(tmp_path / "well.zip")
    files = [str(tmp_path / "sick.zip"), str(tmp_path / "well.zip")]
    main([*files, *FAST, "--geometry", "-o", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out.json").read_text())
    assert [run["run"] for run in report["runs"]] == ["well"]
    assert any("td3 sick: could not be measured" in note and "diverged" in note for note in report["notes"])
    with pytest.raises(SystemExit) as stop:
        main([files[0], *FAST, "-o", str(tmp_path / "alone")])
    assert stop.value.code == 1 and "Nothing could be measured" in capsys.readouterr().err


class Crashing(PendulumEnv):
    """A pendulum that must not start on its right."""

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, -np.inf if self.state[0] < 0 else reward, terminated, truncated, info


@pytest.mark.filterwarnings("ignore:invalid value encountered in subtract")  # SB3's, of infinite returns
def test_returns_that_are_not_finite_are_left_out_with_a_note(tmp_path, monkeypatch, capsys):
    spec = gym.envs.registration.EnvSpec("Crashing-v0", entry_point=Crashing, max_episode_steps=2)
    monkeypatch.setitem(gym.registry, "Crashing-v0", spec)
    small(SAC, seed=0).save(tmp_path / "agent.zip")
    options = ["--env", "Crashing-v0", *FAST[2:], "-n", "4", "--noise", "0.5", "--robustness-episodes", "2"]
    main([str(tmp_path / "agent.zip"), *options, "-o", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["runs"][0]["episodes"]["return"].count(None) == 1
    assert report["notes"] == [
        "sac agent: the return of 1 of 4 episodes is not finite, and left out of the mean",
        "sac agent: the return of 1 of 2 episodes at noise 0 is not finite, and left out of the mean",
        "sac agent: the return of 1 of 2 episodes at noise 0.5 is not finite, and left out of the mean",
    ]
    assert report["notes"][0] in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_noise_of_a_reference_that_can_not_be_measured_is_not_replaced(tmp_path):
    sick = small(TD3, seed=0)
    sick.actor.mu[0].weight.data[:] = np.nan
    sick.save(tmp_path / "sick.zip")
    small(SAC, seed=0).save(tmp_path / "well.zip")
    options = ["--robustness", "--noise", "0.1", "--robustness-episodes", "1", "--reference", "td3"]
    main([str(tmp_path / "well.zip"), str(tmp_path / "sick.zip"), *FAST, *options, "-o", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out.json").read_text())
    (well,) = report["runs"]
    assert "robustness" not in well
    assert any("sac well: no robustness: the noise scale of td3" in note for note in report["notes"])


def test_zips_of_two_algorithms_are_two_columns(tmp_path):
    """Both are called best_model, and DDPG's policy is TD3's."""
    for algorithm in (TD3, DDPG):
        (tmp_path / algorithm.__name__).mkdir()
        small(algorithm, seed=0).save(tmp_path / algorithm.__name__ / "best_model.zip")
    files = [str(tmp_path / name / "best_model.zip") for name in ("TD3", "DDPG")]
    main([*files, *FAST, "-o", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out.json").read_text())
    assert [(run["algorithm"], run["run"]) for run in report["runs"]] == [
        ("td3", "TD3/best_model"),
        ("ddpg", "DDPG/best_model"),
    ]
    assert (tmp_path / "out.md").read_text().startswith("| measure | td3 | ddpg |")


@pytest.mark.parametrize("algo", [[], ["--algo", "sac"]])
def test_two_settings_of_one_algorithm_are_two_columns_unless_the_user_joins_them(tmp_path, algo):
    for folder, gamma in (("a", 0.9), ("b", 0.99)):
        (tmp_path / folder).mkdir()
        small(SAC, seed=0, gamma=gamma).save(tmp_path / folder / "best_model.zip")
    # The second one twice: it is one run
    files = [str(tmp_path / path) for path in ("a/best_model.zip", "b/best_model.zip", "b/../b/best_model")]
    main([*files, *FAST, *algo, "--noise", "0", *QUICK, "--reference", "sac b/best_model", "-o", str(tmp_path / "apart")])
    columns = (tmp_path / "apart.md").read_text().splitlines()[:3]
    assert columns[0] == "| measure | sac a/best_model | sac b/best_model |" and columns[2].count("1 x 1") == 2
    main([*files, *FAST, *algo, "--label", "SAC, both", "-o", str(tmp_path / "joined")])
    columns = (tmp_path / "joined.md").read_text().splitlines()[:3]
    assert columns[0] == "| measure | SAC, both |" and "2 x 1" in columns[2]


def test_an_algorithm_named_twice_is_measured_once(logs, tmp_path):
    main([*FAST, "--algo", "td3", "td3", "-f", str(logs), "-o", str(tmp_path / "out")])
    assert len(json.loads((tmp_path / "out.json").read_text())["runs"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env", "Pendulum-v1"], "what to measure"),
        ([*FAST, "--algo", "sac", "-n", "0"], "at least 1"),
        ([*FAST, "--algo", "sac", "--geometry", "--critic", "best"], "--critic takes"),
        ([*FAST, "--algo", "sac", "--geometry", "--critic", "\N{SUPERSCRIPT TWO}"], "--critic takes"),
        ([*FAST, "--algo", "sac", "--device", "cuda:99"], "PyTorch finds no cuda:99 on this machine"),
        ([*FAST, "--algo", "sac", "--critic", "min"], "--critic goes with --geometry or --surface"),
        ([*FAST, "--algo", "sac", "--robustness-episodes", "2"], "--robustness-episodes goes with --robustness"),
        ([*FAST, "--algo", "sac", "--geometry", "--reference", "sac"], "--reference goes with --robustness"),
        ([*FAST, "a.zip", "-f", "logs"], "--folder goes with runs in a log folder"),
        ([*FAST, "a.zip", "--load-best"], "--load-best goes with runs in a log folder"),
        ([*FAST, "a.zip", "--exp-id", "3"], "--exp-id goes with runs in a log folder"),
        ([*FAST, "--algo", "sac", "--vec-normalize", "x.pkl"], "zip files"),
        ([*FAST, "a.zip", "b.zip", "c.zip", "--algo", "sac", "td3"], "3 zip files"),
        ([*FAST, "--algo", "sac", "--noise", "-1"], "negative"),
        ([*FAST, "--algo", "sac", "--label", "mine", "his"], "--label goes with zip files"),
        ([*FAST, "--algo", "sac", "--control-rate", "inf"], "--control-rate must be positive"),
        ([*FAST, "--gym-packages", "robot", "a.zip"], "a.zip was taken for a value of --gym-packages: zip files come before"),
        ([*FAST, "--algo", "sac", "a.zip"], "a.zip was taken for a value of --algo: zip files come before the options"),
    ],
)
def test_bad_arguments_are_usage_errors(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_reference_that_is_not_measured_is_refused(logs, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([*FAST, "--algo", "sac", "-f", str(logs), "--surface", "--reference", "td3", "-o", str(tmp_path / "out")])
    assert "td3 is not among" in capsys.readouterr().err


def test_an_existing_report_is_kept_before_anything_is_measured(logs, tmp_path, capsys):
    (tmp_path / "out.json").write_text("mine")
    with pytest.raises(SystemExit):
        main([*FAST, "--algo", "nonsense", "-f", str(logs), "-o", str(tmp_path / "out")])
    assert "exists" in capsys.readouterr().err
    assert (tmp_path / "out.json").read_text() == "mine"


def other_statistics(model_path, name):
    """Statistics beside a model that are not those of a fresh environment."""
    env = VecNormalize(make_vec_env("Pendulum-v1"))
    env.obs_rms.mean = np.array([1.0, 2.0, 3.0])
    env.save(str(model_path.with_name(name)))


def test_statistics_saved_with_the_model_come_before_the_zoos(tmp_path):
    """Those of the smoothest model; frames are stacked after they are normalised, as in the zoo's training."""
    config = {"policy": "MlpPolicy", "normalize": True, "frame_stack": 2}
    path = save_run(tmp_path, "sac", 1, small(SAC), config) / "smoothest_model.zip"
    small(SAC).save(path)
    VecNormalize(make_vec_env("Pendulum-v1")).save(str(path.parent / "Pendulum-v1" / "vecnormalize.pkl"))
    other_statistics(path, "smoothest_model_vecnormalize.pkl")
    env = from_zip(path, "Pendulum-v1").make_env("Pendulum-v1")
    assert unwrap_vec_normalize(env).obs_rms.mean.tolist() == [1.0, 2.0, 3.0]
    assert env.observation_space.shape == (6,)
    given = from_zip(path, "Pendulum-v1", None, path.parent / "Pendulum-v1" / "vecnormalize.pkl")
    assert unwrap_vec_normalize(given.make_env("Pendulum-v1")).obs_rms.mean.tolist() == [0.0, 0.0, 0.0]
    (run,) = find_runs(tmp_path, "sac", "Pendulum-v1")
    assert unwrap_vec_normalize(run.make_env("Pendulum-v1")).obs_rms.mean.tolist() == [0.0, 0.0, 0.0]


def test_a_run_keeps_its_settings_in_another_environment_and_a_note_says_so(tmp_path):
    run = save_run(tmp_path, "sac", 1, small(SAC, seed=0), {"policy": "MlpPolicy", "normalize": True}, {"g": 2.0})
    statistics = VecNormalize(make_vec_env("Pendulum-v1"))
    statistics.obs_rms.mean += 1
    statistics.save(str(run / "Pendulum-v1" / "vecnormalize.pkl"))
    gym.register("Other-Pendulum-v1", "gymnasium.envs.classic_control:PendulumEnv", max_episode_steps=200)
    try:
        env = from_zip(run, "Other-Pendulum-v1").make_env("Other-Pendulum-v1")
        assert unwrap_vec_normalize(env).obs_rms.mean.tolist() == [1.0, 1.0, 1.0]
        assert env.get_attr("g") == [2.0]
        for env_id in ("Pendulum-v1", "Other-Pendulum-v1"):
            main([str(run), *FAST, "--env", env_id, "-o", str(tmp_path / env_id)])
    finally:
        del gym.registry["Other-Pendulum-v1"]
    same, other = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("Pendulum-v1", "Other-Pendulum-v1"))
    assert same["runs"][0]["episodes"] == other["runs"][0]["episodes"]
    (note,) = other["notes"]
    assert note.endswith(
        "was trained in Pendulum-v1: its arguments of the environment, wrappers and normalisation there are "
        "used in Other-Pendulum-v1"
    )
    assert "notes" not in same


def test_statistics_of_a_checkpoint_of_sb3s_are_its_own(tmp_path):
    model = small(SAC, env=VecNormalize(make_vec_env("Pendulum-v1")), learning_starts=100)
    model.learn(10, callback=CheckpointCallback(5, str(tmp_path), save_vecnormalize=True))
    agent = from_zip(tmp_path / "rl_model_5_steps", "Pendulum-v1")
    assert agent.vec_normalize_path == tmp_path / "rl_model_vecnormalize_5_steps.pkl"
    assert agent.vec_normalize_path.is_file() and unused_statistics(agent.model_path) is None
    small(SAC).save(tmp_path / "other")
    assert "rl_model_vecnormalize_10_steps.pkl was not used for other.zip" in unused_statistics(tmp_path / "other.zip")


def test_statistics_that_may_be_anothers_are_not_used_but_named(tmp_path):
    small(SAC, seed=0).save(tmp_path / "agent.zip")
    other_statistics(tmp_path / "agent.zip", "vecnormalize.pkl")
    main([str(tmp_path / "agent.zip"), *FAST, "-o", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out.json").read_text())
    direct = record_rollout(small(SAC, seed=0), Monitor(gym.make("Pendulum-v1")), 1, seed=0)
    assert report["runs"][0]["episodes"]["return"] == [direct.episodes[0].total_reward]
    (note,) = report["notes"]
    assert "vecnormalize.pkl was not used for agent.zip" in note and "--vec-normalize" in note
    given = ["--vec-normalize", str(tmp_path / "vecnormalize.pkl")]
    main([str(tmp_path / "agent.zip"), *FAST, *given, "-o", str(tmp_path / "given")])
    assert "notes" not in json.loads((tmp_path / "given.json").read_text())


def test_training_curves_that_may_be_anothers_are_not_used_but_named(tmp_path):
    """Of a run's folder, of models that callbacks keep and of the one beside these, they are known to be its own."""
    curves = {"timesteps": np.array([10, 20]), "results": np.array([[1.0, 3.0], [5.0, 5.0]])}
    own = {"timesteps": [10, 20], "return": [2.0, 5.0]}
    np.savez(tmp_path / "evaluations.npz", **curves)
    for name in ("plain", "best_model", "smoothest_model", "rl_model_10_steps"):
        small(SAC).save(tmp_path / f"{name}.zip")
    for name in ("plain", "rl_model_10_steps"):
        assert from_zip(tmp_path / f"{name}.zip", "Pendulum-v1").training_curves() == own
    small(SAC).save(tmp_path / "paved.zip")
    main([*(str(tmp_path / name) for name in ("plain", "best_model")), *FAST, "-o", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out.json").read_text())
    assert [run.get("training") for run in report["runs"]] == [None, own]
    (note,) = report["notes"]
    assert "plain: no training curves: " in note and "evaluations.npz may be of another model there than plain.zip;" in note
    run = save_run(tmp_path, "sac", 1, small(SAC))
    np.savez(run / "evaluations.npz", **curves)
    small(SAC).save(run / "rl_model_10_steps.zip")
    for path in (tmp_path / "smoothest_model", run / "Pendulum-v1", run / "rl_model_10_steps"):
        assert from_zip(path, "Pendulum-v1").training_curves() == own


@pytest.mark.parametrize("name", ["args.yml", "config.yml"])
@pytest.mark.parametrize("content", ["", "a: [1"])
def test_a_run_with_unreadable_settings_is_named_and_the_others_are_found(logs, name, content):
    broken = logs / "sac" / "Pendulum-v1_3" / "Pendulum-v1" / name
    broken.write_text(content)
    skipped = []
    assert [run.run for run in find_runs(logs, "sac", "Pendulum-v1", skip=skipped.append)] == ["Pendulum-v1_1"]
    assert len(skipped) == 1 and str(broken) in skipped[0]
    with pytest.raises(AgentError, match=name):
        find_runs(logs, "sac", "Pendulum-v1", [3], skip=skipped.append)
    with pytest.raises(AgentError, match=name):
        from_zip(broken.parents[1] / "Pendulum-v1.zip", "Pendulum-v1").make_env("Pendulum-v1")


def test_where_nothing_can_be_written_nothing_is_measured(tmp_path, monkeypatch, capsys):
    small(SAC).save(tmp_path / "agent.zip")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "folder.json").write_text("mine")
    monkeypatch.setattr("sb3_pave.evaluation.measurement.record_rollout", lambda *_: pytest.fail("measured in vain"))
    for output in ("agent.zip/out", "agent.zip/deeper/out", "x" * 250, "folder"):
        with pytest.raises(SystemExit) as stop:
            main([str(tmp_path / "agent.zip"), *FAST, "-o", str(tmp_path / output), "--overwrite"])
        assert stop.value.code == 1 and "can't be written" in capsys.readouterr().err
    assert sorted(one.name for one in tmp_path.iterdir()) == ["agent.zip", "folder.csv", "folder.json"]
    assert (tmp_path / "folder.json").read_text() == "mine"


def test_a_report_that_can_no_longer_be_saved_is_printed(tmp_path, monkeypatch, capsys):
    small(SAC).save(tmp_path / "agent.zip")

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("sb3_pave.evaluation.report_files.save_report", full)
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "agent.zip"), *FAST, "-o", str(tmp_path / "out")])
    printed = capsys.readouterr()
    assert stop.value.code == 1 and "No space left" in printed.err and "sm (published)" in printed.out


def test_zoos_statistics_that_can_not_be_read_are_named(tmp_path):
    save_run(tmp_path, "sac", 1, small(SAC), {"normalize": True})
    settings = tmp_path / "sac" / "Pendulum-v1_1" / "Pendulum-v1"
    (settings / "vecnormalize.pkl").write_text("damaged")
    with pytest.raises(AgentError, match=r"vecnormalize\.pkl could not be read as VecNormalize statistics \(Unpickling"):
        from_zip(settings.parent / "Pendulum-v1.zip", "Pendulum-v1").make_env("Pendulum-v1")


def test_pictures_that_can_not_be_written_are_a_sentence(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    (tmp_path / "report.json").write_text(json.dumps({"format": FORMAT, "runs": [{}]}))
    with pytest.raises(SystemExit) as stop:
        plot([str(tmp_path / "report.json"), "-o", str(tmp_path / "report.json" / "images")])
    assert stop.value.code == 1 and "its folder is a file" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--surface", "--geometry"])
def test_a_critic_that_no_agent_has_is_refused_before_the_first_episode(tmp_path, monkeypatch, capsys, option):
    for algorithm in (SAC, PPO):
        small(algorithm).save(tmp_path / f"{algorithm.__name__}.zip")
    monkeypatch.setattr("sb3_pave.evaluation.measurement.record_rollout", lambda *_: pytest.fail("measured in vain"))
    files = [str(tmp_path / "SAC.zip"), str(tmp_path / "PPO.zip")]
    with pytest.raises(SystemExit) as stop:
        main([*files, *FAST, option, "--critic", "7", "-o", str(tmp_path / "out")])
    assert stop.value.code == 1 and 'There is no critic 7: choose 0 to 1 or "min"' in capsys.readouterr().err


def test_a_critic_that_some_agents_have_is_measured_of_them(tmp_path):
    for algorithm in (DDPG, SAC):  # one critic, and two
        small(algorithm, seed=0).save(tmp_path / f"{algorithm.__name__}.zip")
    files = [str(tmp_path / "DDPG.zip"), str(tmp_path / "SAC.zip")]
    main([*files, *FAST, "--surface", "--critic", "1", "-o", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out.json").read_text())
    assert ["surface" in run for run in report["runs"]] == [False, True]
    assert report["notes"] == ['ddpg DDPG: no surface: There is no critic 1: choose 0 to 0 or "min"']


def test_noise_levels_alone_are_measured(logs, tmp_path):
    main([*FAST, "--algo", "td3", "-f", str(logs), "--noise", "0.2", *QUICK, "-o", str(tmp_path / "out")])
    (run,) = json.loads((tmp_path / "out.json").read_text())["runs"]
    assert [entry["noise_level"] for entry in run["robustness"]] == [0.0, 0.2]
    assert len(run["robustness"][1]["episodes"]["return"]) == 1


def test_runs_of_different_settings_are_pooled_with_a_note(tmp_path, capsys):
    config = {"policy": "MlpPolicy", "curv_coef": 1.0, "gamma": 0.99, "n_timesteps": 1e5, "seed": 1, "device": "cpu"}
    for number, arguments in enumerate(({}, {"arguments": {"g": 5.0}}, {"trained_agent": "a.zip"}, {"n_timesteps": 300}), 1):
        own = {**config, "seed": number, "curv_coef": 0.5} if number == 2 else config
        save_run(tmp_path / "logs", "sac", number, small(SAC, seed=0), own, **arguments)
    main([*FAST, "--algo", "sac", "-f", str(tmp_path / "logs"), "-o", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out.json").read_text())
    assert len(report["runs"]) == 4
    (note,) = report["notes"]
    assert "Runs of sac differ in curv_coef (1; 0.5 in Pendulum-v1_2)" in note and "--exp-id chooses" in note
    assert "env_kwargs (none; {g: 5} in Pendulum-v1_2), trained_agent (none; a.zip in Pendulum-v1_3)" in note
    assert not any(name in note for name in ("gamma", "seed", "device", "policy"))
    assert note in (tmp_path / "out.md").read_text() and "differ in curv_coef" in capsys.readouterr().out


def test_an_algorithm_without_a_model_does_not_cost_the_others(logs, tmp_path):
    (logs / "td3" / "Pendulum-v1_1" / "Pendulum-v1.zip").unlink()
    main([*FAST, "--algo", "td3", "sac", "ppo", "--exp-id", "0", "-f", str(logs), "-o", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out.json").read_text())
    assert [run["run"] for run in report["runs"]] == ["Pendulum-v1_3"]
    assert any("No run of td3 on Pendulum-v1" in note for note in report["notes"])
    assert any("No run of ppo on Pendulum-v1" in note for note in report["notes"])


def test_the_latest_run_is_the_latest_with_a_model(logs):
    skipped = []
    (logs / "sac" / "Pendulum-v1_3" / "Pendulum-v1.zip").unlink()
    assert [run.run for run in find_runs(logs, "sac", "Pendulum-v1", [0], skip=skipped.append)] == ["Pendulum-v1_1"]
    (note,) = skipped
    assert note.startswith("Run 3 of sac on Pendulum-v1: ") and note.endswith("; run 1 is taken")
    with pytest.raises(AgentError, match="Run 3 of sac"):
        find_runs(logs, "sac", "Pendulum-v1", [0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--algo", "sac", "pave_sak"], "There is no algorithm pave_sak: did you mean pave_sac?"),
        (["--algo", "sac", "-f", "nologs"], "The log folder nologs does not exist"),
        (["logs/sac/Pendulum-v1_1/Pendulum-v1.zip", "--algo", "pave_sak"], "did you mean pave_sac?"),
        (["logs/sac/Pendulum-v1_1/Pendulum-v1.zip", "--algo", "td3"], "does not load as TD3: it is a model of SAC"),
        (["logs/sac/Pendulum-v1_1", "--env", "MountainCarContinuous-v0"], "observations of shape (3,), but those of this"),
        (["logs/sac"], "logs/sac is a folder, and not that of a finished run"),
        (["logs/sac/Pendulum-v1_1", "--env", "Robot-v0"], "(--gym-packages names the modules that register environments)"),
        (
            ["logs/sac/Pendulum-v1_1", "--vec-normalize", "logs/sac/Pendulum-v1_1/Pendulum-v1.zip"],
            "Pendulum-v1.zip could not be read as VecNormalize statistics (UnpicklingError: ",
        ),
        (["logs/sac/Pendulum-v1_1", "--vec-normalize", "list.pkl"], "list.pkl holds a list, not VecNormalize statistics"),
    ],
)
def test_what_was_mistaken_is_said(logs, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(SystemExit) as stop:
        main([*FAST, *arguments, "-o", "out"])
    assert stop.value.code == 1 and message in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


def test_the_folder_of_a_run_is_enough_and_a_file_given_twice_is_noted(logs, tmp_path):
    run = logs / "td3" / "Pendulum-v1_1"
    files = [str(run), str(run / "Pendulum-v1.zip")]
    main([*files, *FAST, "--labels", "a", "b", "-o", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out.json").read_text())
    assert [run["model"] for run in report["runs"]] == [files[1]]
    assert report["notes"] == [f"{run / 'Pendulum-v1.zip'} was given 2 times: it is measured once, under its last label"]


@pytest.mark.parametrize(
    ("output", "file"),
    [("p4.json", "p4"), ("p4.md", "p4"), ("gain-0.5", "gain-0.5"), ("there", "there/{}"), ("new/", "new/{}"), (None, "{}")],
)
def test_a_report_is_saved_where_it_was_meant_to_be(tmp_path, monkeypatch, output, file):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    path = output_path(output, "evaluation", "ALE/Pong-v5", suffixes=tuple(SUFFIXES.values()))
    assert str(path) == file.format("evaluation-ALE-Pong-v5")


def test_a_name_that_no_file_can_have_is_a_sentence(logs, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([str(logs / "td3" / "Pendulum-v1_1"), *FAST, "-o", str(tmp_path / ("a" * 300))])
    assert stop.value.code == 1 and "File name too long" in capsys.readouterr().err


class Pixels(gym.Env):
    """Images as most environments have them, the channels last; SB3 trains on them with the channels first."""

    observation_space = gym.spaces.Box(0, 255, (36, 40, 3), np.uint8)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.n = 0
        return self.observation_space.low.copy(), {}

    def step(self, action):
        self.n += 1
        return self.observation_space.high.copy(), float(action[0]), self.n == 3, False, {}


def test_agents_of_images_with_channels_last_are_measured(tmp_path, monkeypatch):
    monkeypatch.setitem(gym.registry, "Pixels-v0", gym.envs.registration.EnvSpec("Pixels-v0", entry_point=Pixels))
    model = SAC("CnnPolicy", Pixels(), buffer_size=10, device="cpu", policy_kwargs={"net_arch": [8]})
    model.save(tmp_path / "agent.zip")
    main([str(tmp_path / "agent.zip"), "--env", "Pixels-v0", *FAST[2:], "-o", str(tmp_path / "out")])
    (run,) = json.loads((tmp_path / "out.json").read_text())["runs"]
    assert run["episodes"]["length"] == [3]
    with pytest.raises(AgentError, match=r"observations of shape \(3, 36, 40\), but those of this environment have \(3,\)"):
        agent = from_zip(tmp_path / "agent.zip", "Pendulum-v1")
        check_spaces(agent, model, agent.make_env("Pendulum-v1"))


def test_actions_of_other_bounds_are_refused(tmp_path):
    """Trained in RescaleAction, say, of which the zip file knows nothing."""
    model = small(SAC, gym.wrappers.RescaleAction(gym.make("Pendulum-v1"), np.float32(-1), np.float32(1)))
    model.save(tmp_path / "rescaled")
    agent = from_zip(tmp_path / "rescaled", "Pendulum-v1")
    with pytest.raises(AgentError, match=r"acts in Box\(-1.0, 1.0, .*takes Box\(-2.0, 2.0"):
        check_spaces(agent, model, agent.make_env("Pendulum-v1"))


def test_a_film_without_a_name_has_its_ending(tmp_path):
    assert output_path(f"{tmp_path}/", "film", "Pong-v5", ".mp4") == tmp_path / "film-Pong-v5.mp4"
    assert str(output_path("film.gif", "film", "Pong-v5", ".mp4")) == "film.gif"


def test_the_caption_is_a_paragraph_and_not_as_narrow_as_the_table(logs, tmp_path, capsys):
    main([*FAST, "--algo", "td3", "-f", str(logs), "-o", str(tmp_path / "out")])
    assert "Pendulum-v1: deterministic actions, seed 0, control rate 20 Hz." in capsys.readouterr().out


def test_arguments_that_were_typed_come_before_those_of_the_file(tmp_path):
    config = {"policy": "MlpPolicy", "env_kwargs": {"g": 5.0}}
    path = save_run(tmp_path, "sac", 1, small(SAC, seed=0), config, arguments={"g": 3.5})
    assert from_zip(path / "Pendulum-v1.zip", "Pendulum-v1").make_env("Pendulum-v1").get_attr("g") == [3.5]


def test_arguments_that_are_given_come_before_those_of_the_run(tmp_path):
    path = save_run(tmp_path, "sac", 1, small(SAC, seed=0), {"env_kwargs": {"g": 2.0}}, {"g": 3.5})
    env = from_zip(path / "Pendulum-v1.zip", "Pendulum-v1").make_env("Pendulum-v1", 0, {"g": 1.0})
    assert env.get_attr("g") == [1.0]


@pytest.mark.parametrize("own", [False, True])
def test_an_agent_is_measured_with_one_normalisation_that_stands_still_and_leaves_the_rewards(tmp_path, own):
    config = {"policy": "MlpPolicy", "normalize": True}
    path = save_run(tmp_path, "sac", 1, small(SAC), config) / "Pendulum-v1.zip"
    VecNormalize(make_vec_env("Pendulum-v1")).save(str(path.parent / "Pendulum-v1" / "vecnormalize.pkl"))
    if own:
        other_statistics(path, "Pendulum-v1_vecnormalize.pkl")
    wrapper = unwrap_vec_normalize(from_zip(path, "Pendulum-v1").make_env("Pendulum-v1"))
    assert not wrapper.training and not wrapper.norm_reward and unwrap_vec_normalize(wrapper.venv) is None


@pytest.mark.parametrize("bounds", [(-2.0, 2.0), (-1.0, 1.0)])
def test_actions_of_which_one_bound_differs_are_refused(bounds):
    of_model, of_env = (
        SimpleNamespace(observation_space=spaces.Box(-1, 1, (3,)), action_space=spaces.Box(*ends, (1,)))
        for ends in ((-1.0, 2.0), bounds)
    )
    with pytest.raises(AgentError, match="acts in"):
        check_spaces(Agent("sac", "x", Path("x.zip")), of_model, of_env)


def test_the_best_model_of_a_run_is_taken_with_its_own_statistics(tmp_path):
    run = save_run(tmp_path, "sac", 1, small(SAC))
    small(SAC).save(run / "best_model.zip")
    (run / "best_model_vecnormalize.pkl").touch()
    args = evaluate_command._parser().parse_args(["--env", "Pendulum-v1", "--algo", "sac", "-f", str(tmp_path), "--load-best"])
    (agent,) = evaluate_command._runs(args, [])
    assert (agent.model_path.name, agent.vec_normalize_path) == ("best_model.zip", run / "best_model_vecnormalize.pkl")


def test_options_are_the_conditions_of_the_measurement():
    options = "--stochastic --seed 3 -n 2 --noise 0.2 --robustness-episodes 7 --critic 1 --control-rate 50 --cutoff 5"
    more = "--geometry --surface --reference sac --device cpu"
    args = ["--env", "X-v0", "--algo", "sac", *options.split(), *more.split()]
    assert evaluate_command._conditions(evaluate_command._parser().parse_args(args)) == Conditions(
        "X-v0",
        n_eval_episodes=2,
        seed=3,
        deterministic=False,
        control_rate=50.0,
        cutoff=5.0,
        noise_levels=(0.2,),
        robustness_episodes=7,
        geometry=True,
        surface=True,
        critic=1,
        reference="sac",
        device="cpu",
    )
