"""What ``sb3-pave experiment`` answers; what it does is tested in tests/experiments."""

import json
import sys

import pytest
import yaml

from sb3_pave.commands.main import main
from sb3_pave.experiments import Run
from sb3_pave.experiments.claims import Claim

pytest.importorskip("rl_zoo3")
pytest.importorskip("joblib")


def answer(capsys, *argv):
    """Exit code and both streams."""
    with pytest.raises(SystemExit) as exit_info:
        main(["experiment", *map(str, argv)])
    shown = capsys.readouterr()
    return exit_info.value.code, shown.out + shown.err


def test_a_mistake_in_the_specification_ends_the_command_before_anything_starts(tmp_path, capsys):
    path = tmp_path / "grid.yml"
    path.write_text(yaml.safe_dump({"environments": ["Pendulum-v1"], "seeds": [1], "steps": 1, "methods": ["pave_sak"]}))
    code, shown = answer(capsys, "run", path, "-o", tmp_path / "out")
    assert code == 1 and "did you mean pave_sac?" in shown
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path, capsys):
    path = tmp_path / "grid.yml"
    path.write_text(yaml.safe_dump({"environments": ["Pendulum-v1"], "seeds": [1], "steps": 1, "methods": ["pave_sac"]}))
    code, shown = answer(capsys, "run", path, "-o", path / "out")
    assert code == 1 and "sb3-pave experiment run: " in shown and "grid.yml is a file, not a folder" in shown
    code, shown = answer(capsys, "run", path, "-o", path)
    assert code == 1 and "grid.yml is a file, not a folder" in shown and "Errno" not in shown
    code, shown = answer(capsys, "run", path, "-o", tmp_path / ("x" * 300))
    assert code == 1 and "x can't be made: File name too long" in shown and "Errno" not in shown


def test_status_of_no_folder_is_an_error(tmp_path, capsys):
    code, shown = answer(capsys, "status", tmp_path / "nothing")
    assert code == 1 and "nothing is not a folder of a grid" in shown


def test_status_of_a_folder_without_runs_is_an_error(tmp_path, capsys):
    (tmp_path / "pave_sac" / "Pendulum-v1_1").mkdir(parents=True)
    code, shown = answer(capsys, "status", tmp_path)
    assert code == 1 and f"{tmp_path} is not a folder of a grid: no run lies in it" in shown


def test_status_says_which_run_is_only_measured(tmp_path, capsys):
    for seed, steps in ((1, 10), (2, 4)):
        run = Run("Pendulum-v1", "A", "td3", seed, steps=10)
        folder = tmp_path / run.folder_name
        (folder / "tries" / "1").mkdir(parents=True)
        (folder / "tries" / "1" / "steps.txt").write_text(str(steps))
        (folder / "run.json").write_text(json.dumps(run.to_dict()))
        assert Claim.acquire(folder)
    main(["experiment", "status", str(tmp_path)])
    shown = capsys.readouterr().out.replace("\n", " ")
    assert "trained, being measured" in shown and "4 of 10 steps" in shown


def test_modules_of_the_current_folder_are_found_after_those_that_are_installed(tmp_path, capsys, monkeypatch):
    (tmp_path / "envs_right_here.py").write_text("")
    (tmp_path / "json.py").write_text("raise AssertionError('not the installed one')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    content = {"environments": ["Nope-v1"], "seeds": [1], "steps": 1, "methods": ["pave_sac"]}
    path = tmp_path / "grid.yml"
    path.write_text(yaml.safe_dump({**content, "gym_packages": ["envs_right_here"]}))
    code, shown = answer(capsys, "run", path, "-o", tmp_path / "out")
    assert code == 1 and "'Nope-v1' is not known" in shown and "envs_right_here" in sys.modules
    assert sys.path[-1] == str(tmp_path)


def test_a_missing_engine_says_what_to_install(tmp_path, capsys, monkeypatch):
    path = tmp_path / "grid.yml"
    path.write_text(yaml.safe_dump({"environments": ["Pendulum-v1"], "seeds": [1], "steps": 1, "methods": ["pave_sac"]}))
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, shown = answer(capsys, "run", path, "-o", tmp_path / "out", "--backend", "dask")
    assert code == 1 and 'pip install "sb3-pave[dask]"' in shown


def test_help_lists_the_commands(capsys):
    code, shown = answer(capsys, "--help")
    assert code == 0 and all(word in shown for word in ("run ", "status ", "report "))
