"""The command, on zip files and on folders laid out as RL Zoo does it."""

import importlib
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import SAC, TD3

from sb3_pave.commands.film import main
from sb3_pave.evaluation import offscreen
from sb3_pave.evaluation.rollout import record_rollout
from sb3_pave.evaluation.zoo_runs import find_runs
from tests.commands.test_evaluate import save_run, small

pytest.importorskip("rl_zoo3")
pytest.importorskip("matplotlib")
pytest.importorskip("pandas")

from PIL import Image

FAST = ["--env", "Pendulum-v1", "--device", "cpu", "--no-progress", "--height", "200", "--steps", "4"]


@pytest.fixture
def zips(tmp_path):
    small(TD3, seed=0).save(tmp_path / "plain.zip")
    small(SAC, seed=1).save(tmp_path / "other.zip")
    return [str(tmp_path / "plain.zip"), str(tmp_path / "other.zip")]


def test_the_renderer_is_chosen_before_the_environments_package_is_imported(zips, tmp_path, monkeypatch):
    """dm_control chooses at import, which --gym-packages does."""
    pytest.importorskip("mujoco")
    (tmp_path / "sees_the_renderer.py").write_text("import os\nCHOSEN = os.environ.get('MUJOCO_GL')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(offscreen, "_has_renderer", lambda: False)
    monkeypatch.setattr(offscreen, "_works", lambda backend: backend == "osmesa")
    monkeypatch.setenv("MUJOCO_GL", "")
    main([*zips, *FAST, "--gym-packages", "sees_the_renderer", "-o", str(tmp_path / "film.gif")])
    assert importlib.import_module("sees_the_renderer").CHOSEN == "osmesa"


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_two_agents_are_filmed(zips, tmp_path, ending, capsys):
    path = tmp_path / "films" / f"film.{ending}"
    main([*zips, *FAST, "--start", "2", "-o", str(path)])
    assert capsys.readouterr().out == f"Saved {path} (0.0 MB)\n"
    with Image.open(path) as film:
        # Steps 2 to 5 at Pendulum's 20 Hz, and the last one for a second more
        assert film.n_frames == 4 and film.height == 200 and film.width > 200
        durations = []
        for i in range(4):
            film.seek(i)
            film.load()
            durations.append(film.info["duration"])
    assert sum(durations) == 4 * 50 + 1000


def test_mp4_of_zoo_runs_and_several_episodes(tmp_path):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    for number, algorithm in ((1, "sac"), (2, "sac"), (1, "td3")):
        save_run(tmp_path, algorithm, number, small({"sac": SAC, "td3": TD3}[algorithm], seed=number))
    path = tmp_path / "film.mp4"
    runs = ["--algo", "sac", "td3", "-f", str(tmp_path), "--episodes", "2", "--speed", "0.5"]
    main([*FAST, *runs, "-o", str(path)])
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(path))
    assert (frames, round(seconds, 2)) == (2 * (4 + 10), 2.8)


@pytest.mark.parametrize(
    ("start", "steps", "length"), [(0, 5, 5), (21, 2, 23), (22, 300, 25)], ids=["short", "past the spec", "past the end"]
)
def test_a_film_ends_early_without_a_word_to_the_environment(tmp_path, monkeypatch, start, steps, length):
    """A run with more steps than the environment's own limit; its wrapper counts down from that, and the agent acts on it."""
    monkeypatch.setattr(gym.spec("Pendulum-v1"), "max_episode_steps", 20)
    wrappers = pytest.importorskip("sb3_contrib.common.wrappers")
    model = small(SAC, wrappers.TimeFeatureWrapper(gym.make("Pendulum-v1")), seed=0)
    config = {"policy": "MlpPolicy", "env_wrapper": "sb3_contrib.common.wrappers.TimeFeatureWrapper"}
    save_run(tmp_path, "sac", 1, model, config, {"max_episode_steps": 25})
    filmed = []

    def only_look(takes, script, fps):
        filmed.append(takes[0])
        yield np.zeros((200, 200, 3), np.uint8)

    monkeypatch.setattr("sb3_pave.evaluation.film.film_frames", only_look)
    shown = ["--start", str(start), "--steps", str(steps), "--episodes", "2", "--seed", "3"]
    main([*FAST, *shown, "--algo", "sac", "-f", str(tmp_path), "-o", str(tmp_path / "film.gif")])
    (agent,) = find_runs(tmp_path, "sac", "Pendulum-v1")
    for seed, take in zip((3, 4), filmed, strict=True):
        (evaluated,) = record_rollout(agent.load("cpu"), agent.make_env("Pendulum-v1"), 1, seed=seed).episodes
        np.testing.assert_array_equal(take.actions, evaluated.actions[:length])
        assert take.steps == list(range(start, length))
        assert take.episode.total_reward == pytest.approx(evaluated.rewards[:length].sum(), abs=1e-4)


def test_agents_are_called_by_algorithm_and_by_run_where_that_is_not_enough(zips, tmp_path, monkeypatch):
    seen = []

    def only_look(agents, settings, path, progress):
        seen.append(settings)
        path.touch()

    monkeypatch.setattr("sb3_pave.evaluation.film.make_film", only_look)
    main([*zips, *FAST, "-o", str(tmp_path / "a.gif"), "--overwrite"])
    main([*zips, *FAST, "--algo", "pave_td3", "-o", str(tmp_path / "a.gif"), "--overwrite"])
    main([*zips, *FAST, "--labels", "x", "y", "-o", str(tmp_path / "a.gif"), "--overwrite"])
    by_run = ["PAVE TD3, plain", "PAVE TD3, other"]
    assert [list(settings.labels) for settings in seen] == [["TD3", "SAC"], by_run, ["x", "y"]]
    assert seen[0].title == "Pendulum-v1, deterministic actions, seed 0"


def test_an_existing_film_is_kept_unless_told(zips, tmp_path, capsys):
    path = tmp_path / "film.gif"
    path.write_text("mine")
    with pytest.raises(SystemExit) as stop:
        main([*zips, *FAST, "-o", str(path)])
    assert stop.value.code == 1 and "exists" in capsys.readouterr().err
    assert path.read_text() == "mine"
    main([*zips, *FAST, "-o", str(path), "--overwrite"])
    with Image.open(path) as film:
        assert np.asarray(film.convert("RGB")).std() > 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "what to film"),
        (["--algo", "sac", "--vec-normalize", "x.pkl"], 2, "zip files"),
        (["a.zip", "b.zip", "c.zip", "--algo", "sac", "td3"], 2, "3 zip files need one --algo"),
        (["a.zip", "-f", "logs", "--exp-id", "3"], 2, "--folder goes with runs in a log folder"),
        (["--algo", "sac", "-f", "nologs"], 1, "The log folder nologs does not exist"),
        (["ZIP", "--env", "MountainCarContinuous-v0"], 1, "was trained with observations of shape (3,)"),
        (["missing.zip"], 1, "missing.zip does not exist"),
        (["ZIP", "--labels", "a", "b"], 1, "1 agents need as many labels, not 2"),
        (["ZIP", "--actions", "1"], 1, "no action 1: the environment has 1"),
        (["ZIP", "--start", "500"], 1, "ends after 200 steps, before the film starts"),
        (["ZIP", "--steps", "0"], 1, "steps must be at least 1"),
        (["ZIP", "--speed", "nan"], 1, "speed must be positive"),
        (["ZIP", "--height", "201"], 1, "even number"),
        (["ZIP", "--seed", "-1"], 2, "--seed takes a whole number from 0 to 4294967295"),
        (["ZIP", "-o", "/proc/film.gif"], 1, "/proc/film.gif can't be written"),
        (["ZIP", "-o", "film.avi"], 1, "ends in .mp4, .gif or .webp"),
        (["ZIP", "--env", "Nothing-v0"], 1, "(--gym-packages names the modules that register environments)"),
        (["ZIP", "--vec-normalize", "a.pkl", "b.zip"], 2, "b.zip was taken for a value of --vec-normalize: zip files come"),
        (["ZIP", "--gym-packages", "nothing_there"], 1, "--gym-packages: No module named 'nothing_there'"),
    ],
)
def test_what_can_not_be_filmed_is_said(zips, tmp_path, monkeypatch, capsys, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main([*FAST, *(zips[0] if argument == "ZIP" else argument for argument in arguments)])
    assert stop.value.code == code
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.mp4"))


def test_statistics_that_may_be_anothers_are_not_used_but_named(zips, tmp_path, monkeypatch, capsys):
    (Path(zips[0]).parent / "vecnormalize.pkl").touch()
    monkeypatch.setattr("sb3_pave.evaluation.film.make_film", lambda agents, settings, path, _: path.touch())
    main([zips[0], *FAST, "-o", str(tmp_path / "film.gif")])
    assert "vecnormalize.pkl was not used for" in capsys.readouterr().err


def test_the_settings_of_a_run_in_another_environment_are_used_and_named(zips, tmp_path, monkeypatch, capsys):
    settings = Path(zips[0]).parent / "Trained-v0"
    settings.mkdir()
    (settings / "config.yml").write_text("policy: MlpPolicy")
    used = []

    def make_film(agents, settings, path, _):
        used.extend(agents)
        path.touch()

    monkeypatch.setattr("sb3_pave.evaluation.film.make_film", make_film)
    main([zips[0], *FAST, "-o", str(tmp_path / "film.gif")])
    assert "was trained in Trained-v0: its arguments of the environment" in capsys.readouterr().err
    assert used[0].stats_path == settings


def test_a_missing_package_is_named_with_the_extra(zips, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(SystemExit):
        main([*zips, *FAST, "-o", str(tmp_path / "film.mp4")])
    assert 'needs imageio_ffmpeg, which is not installed: pip install "sb3-pave[eval]"' in capsys.readouterr().err


def test_the_latest_run_that_is_filmed_has_a_model(tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(
        "sb3_pave.evaluation.film.make_film", lambda agents, settings, path, _: (seen.append(agents), path.touch())
    )
    save_run(tmp_path / "logs", "sac", 1, small(SAC, seed=1))
    crashed = save_run(tmp_path / "logs", "sac", 2, small(SAC, seed=2))
    (crashed / "Pendulum-v1.zip").unlink()
    main([*FAST, "--algo", "sac", "sac", "-f", str(tmp_path / "logs"), "-o", f"{tmp_path}/"])
    assert [agent.run for (agent,) in seen] == ["Pendulum-v1_1"] and (tmp_path / "film-Pendulum-v1.mp4").exists()
    assert "Note: Run 2 of sac on Pendulum-v1: No model found" in capsys.readouterr().err
