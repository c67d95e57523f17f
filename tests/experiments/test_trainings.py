"""Grids of real trainings, killed and broken at every place that hurts."""

import dataclasses
import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from stable_baselines3.common.callbacks import CallbackList, ConvertCallback
from stable_baselines3.common.env_util import make_vec_env

pytest.importorskip("joblib")
pytest.importorskip("rl_zoo3")
pytest.importorskip("rliable")

from sb3_pave import PAVE_SAC
from sb3_pave.commands.main import main
from sb3_pave.experiments import (
    EvaluationSettings,
    GridError,
    Run,
    RunState,
    Specification,
    grid_status,
    job,
    process,
    run_grid,
)
from sb3_pave.experiments.callback import RunCallback
from sb3_pave.experiments.files import write_json
from tests.experiments.processes import children_of, is_running, wait_for

STEPS, EVERY = 600, 150
SMALL = {"learning_starts": 100, "batch_size": 8, "buffer_size": 2000, "policy_kwargs": {"net_arch": [8]}}


def write_specification(folder, seeds=(1,), **methods):
    content = {
        "environments": {"Pendulum-v1": {"steps": STEPS}},
        "seeds": list(seeds),
        "methods": methods,
        "evaluation": {"episodes": 2, "every": EVERY, "robustness": [0.1], "robustness_episodes": 1, "geometry": True},
        "checkpoint_steps": 100,
        "device": "cpu",
    }
    path = folder / "grid.yml"
    path.write_text(yaml.safe_dump(content))
    return path


def reject_constant(name):
    raise AssertionError(f"{name} is not JSON")


def test_a_grid_ends_with_results_whatever_one_of_its_runs_does(tmp_path, monkeypatch, capsys):
    """A method that aborts, and a disk that is full when the other one's result is to be written."""
    aborting = {**SMALL, "callback": "tests.experiments.callbacks.Abort"}
    path = write_specification(
        tmp_path,
        PAVE={"algorithm": "pave_td3", "hyperparameters": SMALL},
        crash={"algorithm": "td3", "hyperparameters": aborting},
    )
    folder = tmp_path / "out"
    pave, crash = Specification.load(path).runs()
    write = process.write_json

    def write_until_full(path, data):
        if path.name == "result.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, data)

    monkeypatch.setattr(process, "write_json", write_until_full)
    with pytest.raises(GridError, match="No space left on device"):
        run_grid([pave], folder, progress=False)
    assert not (folder / pave.folder_name / "result.json").exists()
    monkeypatch.setattr(process, "write_json", write)

    monkeypatch.setattr(job, "MAX_TRIES", 1)  # that it is three is tested where it takes no time
    with pytest.raises(SystemExit) as exit_info:
        main(["experiment", "run", str(path), "-o", str(folder), "-j", "2"])
    assert exit_info.value.code == 1
    shown = capsys.readouterr().out
    assert "Pendulum-v1 PAVE seed 1: return -" in shown
    assert f"1 runs done, 1 failed\n\n{crash.folder_name}:" in shown and "ended by SIGABRT" in shown

    # What had been trained was not trained again
    log = (folder / pave.folder_name / "log.txt").read_text()
    assert log.count("sb3-pave train") == 1 and log.count("sb3-pave evaluate") == 2
    text = (folder / pave.folder_name / "result.json").read_text()
    result = json.loads(text, parse_constant=reject_constant)
    assert str(tmp_path) not in text and len(text) < 10_000
    run = {"environment": "Pendulum-v1", "method": "PAVE", "algorithm": "pave_td3", "seed": 1, "steps": STEPS}
    assert {key: result[key] for key in run} == run
    assert (result["key"], result["tries"], result["resumed_from"], result["device"]) == (pave.key, 1, [], "cpu")
    assert result["hyperparameters"] == SMALL and result["conf"]["Pendulum-v1"]["vfc_coef"] == 0.005
    assert len(result["evaluation"]["episodes"]["sm"]) == 2
    assert [one["noise_level"] for one in result["evaluation"]["robustness"]] == [0.0, 0.1]
    assert result["evaluation"]["geometry"]["M_mean"] > 0
    assert result["settings"]["control_rate"] == 20.0 and result["versions"]["torch"]

    # Curves are what the evaluations measured, and what the agent logged of its training
    curves, logs = result["curves"], folder / pave.folder_name / "logs"
    (saved,) = logs.glob("pave_td3/*/evaluations.npz")
    with np.load(saved) as evaluations:
        assert curves["timesteps"] == evaluations["timesteps"].tolist() == [150, 300, 450, 600]
        for name, key in {"return": "results", "sm": "sm", "action_change": "action_change"}.items():
            np.testing.assert_allclose(curves[name], evaluations[key].mean(axis=1), rtol=1e-5)
    assert {"train/mpr_loss", "train/curv_loss", "train/critic_loss"} < set(curves)
    assert curves["train/n_updates"] == [49.0, 199.0, 349.0, 499.0]
    assert not list(logs.glob("checkpoint*")) and not (folder / pave.folder_name / "tries").exists()

    # Measured in another way, the agent is not trained again
    again = dataclasses.replace(pave, evaluation=dataclasses.replace(pave.evaluation, robustness=(), geometry=False))
    assert run_grid([again], folder, progress=False).done == [again]
    measured = json.loads((folder / again.folder_name / "result.json").read_text())
    assert measured["curves"] == curves and "robustness" not in measured["evaluation"]
    assert measured["evaluation"]["episodes"] == result["evaluation"]["episodes"]
    assert "sb3-pave train" not in (folder / again.folder_name / "log.txt").read_text()
    assert (folder / pave.folder_name / "result.json").read_text() == text

    main(["experiment", "status", str(folder)])
    assert "failed: " + crash.folder_name in capsys.readouterr().out.replace("\n", "")
    assert (folder / "grid.yml").read_text().endswith(path.read_text())


@pytest.mark.parametrize(
    ("change", "found"),
    [({}, True), ({"method": "ours"}, True), ({"method": "ours", "seed": 2}, False), ({"steps": 9}, False)],
)
def test_an_agent_is_found_under_another_name_of_its_method_and_no_other_is(tmp_path, change, found):
    before = Run("Pendulum-v1", "PAVE", "pave_td3", 1, steps=10)
    done = tmp_path / before.folder_name
    (done / "logs").mkdir(parents=True)
    write_json(done / "run.json", {"key": before.key, **before.to_dict()})
    write_json(done / "logs" / "trained.json", {"steps": 10})
    damaged = tmp_path / "Pendulum-v1-A-seed1-0"
    (damaged / "logs").mkdir(parents=True)
    write_json(damaged / "run.json", {"format": 0})
    write_json(damaged / "logs" / "trained.json", {})
    run = dataclasses.replace(before, **change, evaluation=dataclasses.replace(before.evaluation, robustness=(0.1,)))
    folder = tmp_path / run.folder_name
    attempt = process._trained_elsewhere(run, folder)
    assert attempt == (folder / "tries" / "1" if found else None)
    assert not found or (json.loads((attempt / "trained.json").read_text()) == {"steps": 10} and (done / "logs").is_dir())


@pytest.mark.parametrize(("every", "same"), [(0, True), (5, False)])
def test_the_length_of_evaluations_counts_where_they_make_curves(every, same):
    runs = [Run("Pendulum-v1", "PAVE", "td3", 1, 10, evaluation=EvaluationSettings(n, every)) for n in (10, 20)]
    assert (runs[0].training_key == runs[1].training_key) is same
    assert runs[0].key != runs[1].key


def test_files_of_the_folder_do_not_stand_in_for_what_is_installed(tmp_path):
    (tmp_path / "statistics.py").write_text("raise SystemExit('not mine')")
    command = [sys.executable, "-c", process._SB3_PAVE, "--version"]
    assert "sb3-pave" in subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes as Linux shows them")
def test_a_killed_run_and_a_killed_runner_go_on_where_they_were(tmp_path):
    slow = {**SMALL, "normalize": True, "callback": "tests.experiments.callbacks.Slow"}
    path = write_specification(tmp_path, seeds=(1, 2), PAVE={"algorithm": "pave_sac", "hyperparameters": {**slow}})
    done, killed = Specification.load(path).runs()
    folder = tmp_path / "out"
    (folder / done.folder_name).mkdir(parents=True)
    finished = folder / done.folder_name / "result.json"
    finished.write_text(json.dumps(done.to_dict()))
    before = finished.stat()
    tries = folder / killed.folder_name / "tries"

    runner = subprocess.Popen([sys.executable, "-m", "sb3_pave", "experiment", "run", path, "-o", folder, "--no-progress"])
    wait_for(lambda: list(tries.glob("1/checkpoint-[12]00")))
    (training,) = children_of(runner.pid)
    os.kill(training, signal.SIGKILL)
    wait_for(lambda: list(tries.glob("2/checkpoint-[45]00")))
    states = {one.folder.name: one.state for one in grid_status(folder)}
    assert states == {done.folder_name: RunState.DONE, killed.folder_name: RunState.RUNNING}
    (training,) = children_of(runner.pid)
    runner.kill()
    runner.wait()
    wait_for(lambda: not is_running(training))  # nobody would collect what it makes
    assert {one.state for one in grid_status(folder)} == {RunState.DONE, RunState.WAITING}

    outcome = run_grid([done, killed], folder, progress=False)
    assert outcome.done == [done, killed] and finished.stat().st_mtime_ns == before.st_mtime_ns
    result = json.loads((folder / killed.folder_name / "result.json").read_text())
    assert result["tries"] == 3
    first, second = result["resumed_from"]
    assert 100 <= first < second < STEPS
    assert result["curves"]["timesteps"] == [150, 300, 450, 600]
    # Nothing was lost of what was logged between the last evaluation and the checkpoint, at 400 after an update, neither
    # were steps counted anew nor was the warm-up repeated: 50 updates at every 50 steps, as if nothing had been
    assert result["curves"]["train/n_updates"] == [None, 150.0, 300.0, 450.0]
    (model,) = (folder / killed.folder_name).glob("logs/pave_sac/*/Pendulum-v1.zip")
    with zipfile.ZipFile(model) as file:
        assert json.loads(file.read("data"))["num_timesteps"] == STEPS
    statistics = pickle.loads((model.parent / "Pendulum-v1" / "vecnormalize.pkl").read_bytes())
    # Statistics went on, too: an observation each step and each start, from a count of 1e-4
    assert STEPS <= statistics.obs_rms.count < STEPS + 10
    assert (folder / killed.folder_name / "log.txt").read_text().count("Loading replay buffer") == 2


@pytest.mark.parametrize("handles", [True, False])
def test_n_step_returns_do_not_run_on_into_what_follows_a_checkpoint(tmp_path, handles):
    """In the middle of an episode: its last transition and the first one after it are of different episodes."""
    settings = dict(buffer_size=100, learning_starts=100, replay_buffer_kwargs={"handle_timeout_termination": handles})
    model = PAVE_SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, **settings).learn(30)
    assert not model.replay_buffer.dones.any()
    write_json(tmp_path / "training.json", {"steps": 30, "seconds": 1.0, "curves": []})
    model.learn(30, callback=RunCallback(tmp_path, "Pendulum-v1", os.getppid(), checkpoint=tmp_path))
    dones, timeouts = model.replay_buffer.dones[:, 0], model.replay_buffer.timeouts[:, 0]
    assert dones.nonzero()[0].tolist() == [29]
    assert timeouts.nonzero()[0].tolist() == ([29] if handles else [])


def test_what_goes_on_counts_the_steps_of_all_environments_and_the_seconds_of_before(tmp_path):
    """SB3's callbacks count calls, each of which is a step of every environment."""
    write_json(tmp_path / "training.json", {"steps": 40, "seconds": 1000.0, "curves": []})
    env, other = make_vec_env("Pendulum-v1", 2), ConvertCallback(lambda *_: True)
    run = RunCallback(tmp_path, "Pendulum-v1", os.getppid(), checkpoint=tmp_path)
    model = PAVE_SAC("MlpPolicy", env, policy_kwargs={"net_arch": [8]}, buffer_size=100, learning_starts=100)
    model.learn(60, callback=CallbackList([run, other]))
    assert (model.num_timesteps, other.n_calls) == (60, 30)
    assert 1000 < json.loads((tmp_path / "training.json").read_text())["seconds"] < 2000


def test_a_resumed_training_has_a_seed_of_its_own_after_each_checkpoint():
    run = Run("Pendulum-v1", "A", "sac", seed=3, steps=100)
    seeds = [process._seed(run, resumed_from) for resumed_from in ([], [40], [40, 80], [40])]
    assert seeds[0] == 3 and len(set(seeds)) == 3 and seeds[1] == seeds[3] and all(0 <= seed < 2**31 for seed in seeds)


def test_arguments_of_the_environment_reach_training_and_evaluations(tmp_path):
    hyperparameters = {"policy": "MlpPolicy", "env_kwargs": {"g": 5.0}}
    run = Run("Pendulum-v1", "A", "sac", seed=1, steps=100, hyperparameters=hyperparameters, conf="Pendulum-v1: {}")
    command = process._train_command(run, tmp_path, None, [])
    assert command[command.index("--env-kwargs") + 1 :] == ["g:5.0"]
    assert "env_kwargs" not in yaml.safe_load((tmp_path / "conf.yml").read_text())["Pendulum-v1"]
