import json
import re
import subprocess
import sys
from functools import partial

import pytest
from rl_zoo3.utils import ALGOS

import sb3_pave
from sb3_pave.commands import main as cli


def test_help_lists_each_command_with_a_line(capsys):
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["--help"])

    assert exit_info.value.code == 0
    listed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith("  "))
    for name, command in {**cli.ZOO_COMMANDS, **cli.OWN_COMMANDS}.items():
        assert listed[name] == command.summary


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["--version"])

    assert exit_info.value.code == 0
    assert capsys.readouterr().out == f"sb3-pave {sb3_pave.__version__}\n"


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (["trian"], "unknown command 'trian'; did you mean train?"),
        (["record-video"], "unknown command 'record-video'; did you mean record_video?"),
        (["xyzzy"], "unknown command 'xyzzy'; sb3-pave --help lists them"),
        ([], "which command? sb3-pave --help lists them"),
    ],
)
def test_unknown_command_is_an_error_with_a_hint(argv, hint, capsys):
    with pytest.raises(SystemExit) as exit_info:
        cli.main(argv)

    assert exit_info.value.code == 2
    assert hint in capsys.readouterr().err


def test_own_command_gets_its_arguments(tmp_path, monkeypatch, capsys):
    (tmp_path / "own_command.py").write_text("def main(argv):\n    print(argv)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(cli.OWN_COMMANDS, "own", cli.OwnCommand("", "own_command"))
    cli.main(["own", "--algo", "pave_sac", "--help"])

    assert capsys.readouterr().out == "['--algo', 'pave_sac', '--help']\n"


def test_zoo_command_without_the_zoo_says_what_to_install(monkeypatch, capsys):
    for module in [name for name in sys.modules if name.startswith("sb3_pave.zoo")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "rl_zoo3", None)
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["train", "--algo", "pave_sac"])

    assert exit_info.value.code == 1
    message = capsys.readouterr().err
    assert "sb3-pave train needs rl_zoo3" in message
    assert 'pip install "sb3-pave[zoo]"' in message


def test_zoo_command_without_an_undeclared_requirement_says_what_to_install(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "rl_zoo3.load_from_hub", raising=False)
    for module in ("requests", "requests.exceptions"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["load_from_hub", "--help"])

    assert exit_info.value.code == 1
    assert "sb3-pave load_from_hub needs requests" in capsys.readouterr().err


def test_a_missing_module_of_the_user_is_not_taken_for_ours(sb3_pave_command, tmp_path, monkeypatch):
    # With what is missing in a module of theirs, the whole traceback
    (tmp_path / "envs_that_import.py").write_text("import no_such_package")
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        sb3_pave_command("train", "--algo", "pave_sac", "--gym-packages", "envs_that_import")


@pytest.mark.parametrize("given", [["--gym-packages", "no_such_envs"], ["--gym-packages=no_such_envs.deeper"]])
def test_where_modules_of_the_user_are_looked_for_is_said(given, sb3_pave_command, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as exit_info:
        sb3_pave_command("train", "--algo", "pave_sac", *given)
    shown = capsys.readouterr().err
    assert exit_info.value.code == 1 and "pip install" not in shown
    assert "sb3-pave train: --gym-packages: No module named 'no_such_envs'; it is neither installed nor" in shown


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("def x(:\n", "SyntaxError: invalid syntax ({}/robot_that_fails.py, line 1)"),
        (
            "\nimport json\njson.loads('')\n",
            "JSONDecodeError: Expecting value: line 1 column 1 (char 0) ({}/robot_that_fails.py, line 3)",
        ),
        ("import robot_driver", "RuntimeError: no serial port ({}/robot_driver.py, line 2)"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ("train", "--algo", "pave_sac", "--env", "Pendulum-v1", "--gym-packages"),
        ("evaluate", "a.zip", "--env", "Pendulum-v1", "--gym-packages"),
        ("bench", "--gym-packages"),
        ("experiment", "run", "grid.yml", "-o", "out"),
    ],
)
def test_a_module_of_the_user_that_fails_is_a_sentence(command, content, says, sb3_pave_command, tmp_path, capsys):
    (tmp_path / "robot_that_fails.py").write_text(content)
    (tmp_path / "robot_driver.py").write_text("\nraise RuntimeError('no serial port')")
    methods = {"seeds": [1], "steps": 1, "methods": ["sac"]}
    grid = {"environments": ["Pendulum-v1"], **methods, "gym_packages": ["robot_that_fails"]}
    (tmp_path / "grid.yml").write_text(json.dumps(grid))
    with pytest.raises(SystemExit) as exit_info:
        sb3_pave_command(*command, *(["robot_that_fails"] if "--gym-packages" in command else []))
    assert exit_info.value.code == 1
    message = (
        f"{'--gym-packages' if '--gym-packages' in command else 'gym_packages'}: robot_that_fails could not be imported: "
    )
    shown = capsys.readouterr().err
    assert shown.startswith(f"sb3-pave {command[0]}") and shown.endswith(f"{message}{says.format(tmp_path)}\n")


def test_modules_of_the_current_folder_never_stand_in_for_others(tmp_path):
    """As the installed script, whose path does not begin with the current folder."""
    (tmp_path / "json.py").write_text("raise AssertionError('not the installed one')")
    (tmp_path / "envs_right_here.py").write_text("print('found')")
    script = tmp_path / "bin" / "script.py"
    script.parent.mkdir()
    script.write_text(
        "from sb3_pave.commands.extras import find_modules_here\nfind_modules_here()\nimport json, envs_right_here\n"
    )
    run = partial(subprocess.run, cwd=tmp_path, capture_output=True, text=True)
    assert run([sys.executable, str(script)]).stdout == "found\n"
    if sys.version_info >= (3, 11):
        assert "No module named 'envs_right_here'" in run([sys.executable, "-P", str(script)]).stderr


def test_modules_of_the_current_folder_serve_the_zoos_commands_as_with_python_m(sb3_pave_command, tmp_path, monkeypatch):
    """A configuration, wrappers and callbacks of a file."""
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    (tmp_path / "conf_right_here.py").write_text("raise AssertionError('found')")
    with pytest.raises(AssertionError, match="found"):
        sb3_pave_command("train", "--algo", "pave_sac", "--env", "Pendulum-v1", "-conf", "conf_right_here")


@pytest.mark.parametrize("given", [["--algo", "pave_sak"], ["--algo=pave_sak"]])
def test_a_misspelled_algorithm_is_answered_with_the_nearest(given, sb3_pave_command, capsys):
    with pytest.raises(SystemExit) as exit_info:
        sb3_pave_command("train", *given, "--env", "Pendulum-v1")
    assert exit_info.value.code == 1
    assert capsys.readouterr().err == "sb3-pave train: --algo: there is no 'pave_sak'; did you mean pave_sac?\n"


@pytest.mark.parametrize("command", cli.ZOO_COMMANDS)
def test_help_of_each_zoo_command_is_the_zoos(command, sb3_pave_command, capsys):
    argv_before = sys.argv
    with pytest.raises(SystemExit) as exit_info:
        sb3_pave_command(command, "--help")

    assert exit_info.value.code == 0
    assert sys.argv is argv_before
    out = capsys.readouterr().out
    # The zoo names some of its parsers itself
    assert f"usage: sb3-pave {command}" in out or "usage: Gather results" in out
    if command not in ("plot_train", "all_plots", "plot_from_file", "benchmark"):
        choices = re.search(r"--algo\s+\{(.*?)\}", out, re.DOTALL)[1].split(",")
        assert choices == list(ALGOS)
        assert {"pave_td3", "pave_sac"} < set(choices)


def test_the_command_starts_without_the_zoo_and_as_a_module():
    code = "import sys, sb3_pave.commands.main; sys.exit('rl_zoo3' in sys.modules or 'matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    shown = subprocess.run([sys.executable, "-m", "sb3_pave", "--version"], capture_output=True, text=True)
    assert shown.stdout == f"sb3-pave {sb3_pave.__version__}\n"
