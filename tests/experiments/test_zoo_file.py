"""The YAML file of a trial: how to train with it, and when it is written."""

import shlex

import pytest

from sb3_pave.experiments import Run
from sb3_pave.experiments.zoo_file import export, train_command, zoo_yaml

SEARCHED = {"n_runs": 1}
TRIAL = {"number": 3, "hyperparameters": {"mpr_coef": 0.5}, "return": -100.0, "sm": 0.5}


def run_of(**changes):
    return Run("Arm-v0", "searched", "pave_sac", 1, 260, **changes)


def test_the_command_imports_what_registers_the_environment_and_quotes_blanks():
    run = run_of(gym_packages=("arms", "more_arms"))
    command = train_command(run, "my files/tuned.yml")
    assert shlex.split(command)[2:] == [
        *("--algo", "pave_sac", "--env", "Arm-v0", "-conf", "my files/tuned.yml"),
        *("--gym-packages", "arms", "more_arms"),
    ]
    assert f"\n# {train_command(run, 'FILE')}\n" in zoo_yaml(SEARCHED, TRIAL, [run])
    assert "--gym-packages" not in train_command(run_of(), "tuned.yml")


def test_a_file_that_holds_the_trial_already_is_left_alone(tmp_path):
    path = tmp_path / "tuned.yml"
    export(SEARCHED, TRIAL, [run_of()], path)
    before = path.stat().st_mtime_ns
    export(SEARCHED, TRIAL, [run_of()], path)
    export(SEARCHED, TRIAL, [run_of()], path, overwrite=True)
    assert path.stat().st_mtime_ns == before
    for other in (b"# mine\n", b"\xff"):
        path.write_bytes(other)
        with pytest.raises(FileExistsError, match="--overwrite"):
            export(SEARCHED, TRIAL, [run_of()], path)
        assert path.read_bytes() == other
    export(SEARCHED, TRIAL, [run_of()], path, overwrite=True)
    assert path.read_text() == zoo_yaml(SEARCHED, TRIAL, [run_of()])
