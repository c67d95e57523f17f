"""What ``sb3-pave experiment`` answers; what it does is tested in tests/experiments."""

import sys

import pytest
import yaml

from sb3_pave.commands.main import main

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
    assert code == 1 and "sb3-pave experiment run: " in shown and "Not a directory" in shown


def test_status_of_no_folder_is_an_error(tmp_path, capsys):
    code, shown = answer(capsys, "status", tmp_path / "nothing")
    assert code == 1 and "nothing is not a folder of a grid" in shown


def test_a_missing_engine_says_what_to_install(tmp_path, capsys, monkeypatch):
    path = tmp_path / "grid.yml"
    path.write_text(yaml.safe_dump({"environments": ["Pendulum-v1"], "seeds": [1], "steps": 1, "methods": ["pave_sac"]}))
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, shown = answer(capsys, "run", path, "-o", tmp_path / "out", "--backend", "dask")
    assert code == 1 and 'pip install "sb3-pave[dask]"' in shown


def test_help_lists_the_commands(capsys):
    code, shown = answer(capsys, "--help")
    assert code == 0 and all(word in shown for word in ("run ", "status ", "report "))
