"""README's commands and programs, as they stand there but for the number of steps."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sb3_pave.algorithms.units import PAPER, SCALE_FREE

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
STEPS = 300
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("examples/results/*.md"))]


def programs() -> list[list[str]]:
    """The command lines of every bash block and the program of every Python block, in README's order."""
    found: list[list[str]] = []
    for language, block in re.findall(r"^```(bash|python)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL):
        if language == "python":
            found.append([sys.executable, "-c", re.sub(r"total_timesteps=[\d_]+", f"total_timesteps={STEPS}", block)])
        else:
            lines = [line.split("  #")[0].strip() for line in block.replace("\\\n", " ").splitlines()]
            found += [shortened(line) for line in lines if line.startswith(("sb3-pave ", "python "))]
    return found


def install_lines() -> list[str]:
    """Every command with which README installs the package, in its order; ``.ci/run`` runs them in a clean environment."""
    return list(dict.fromkeys(re.findall(r"(?:^|`)(pip install .+?)(?= *(?:`|  #|$))", README, flags=re.MULTILINE)))


def shortened(command: str) -> list[str]:
    """The command with fewer steps, so that learning starts in them and there are finished episodes."""
    program, *arguments = shlex.split(re.sub(r"(?<= )-n \d+", f"-n {STEPS}", command))
    if "train" in command:
        if "-params" not in arguments:
            arguments += ["-params"]
        at = arguments.index("-params") + 1
        arguments[at:at] = ["learning_starts:100"]
    return [sys.executable, *(["-m", "sb3_pave"] if program == "sb3-pave" else []), *arguments]


def test_every_command_and_program_runs(tmp_path):
    """One after the other in one folder, since the later ones use what the earlier ones made."""
    for package in ("rl_zoo3", "rliable", "onnxruntime"):
        pytest.importorskip(package)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    assert len(programs()) > 15
    for program in programs():
        done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{shlex.join(program)}\n{done.stdout}\n{done.stderr}"


def test_it_installs_from_what_a_checkout_has():
    """sb3-pave is on no index: only what is installed already may be named."""
    first, *others = install_lines()
    assert first == "pip install ." and len(others) > 4
    from_here = re.compile(r'pip install "?(?:\.|\$\(ls dist/\*\.whl\)|dist/\*\.whl|sb3-pave)(?:\[([\w,]+)\])?"?')
    places = [from_here.fullmatch(line) for line in others]
    assert all(places), dict(zip(others, places, strict=True))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for place in places:
        for extra in filter(None, (place[1] or "").split(",")):
            assert re.search(rf"^{extra} = \[", project, flags=re.MULTILINE), extra


@pytest.mark.parametrize("page", PAGES)
def test_files_that_it_names_exist(page):
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text(encoding="utf-8"))
    missing = [one for one in targets if not one.startswith("http") and not ((ROOT / page).parent / one).exists()]
    assert not missing


def test_the_table_of_signals_is_complete():
    from sb3_pave import PAVE_SAC, PAVE_TQC

    settings = {"scale_free": True, "policy_kwargs": {"net_arch": [8]}, "learning_starts": 5, "batch_size": 4}
    logs = [algorithm("MlpPolicy", "Pendulum-v1", **settings).learn(20).logger for algorithm in (PAVE_SAC, PAVE_TQC)]
    hosts_own = {"train/learning_rate", "train/n_updates", "train/actor_loss", "train/ent_coef", "train/ent_coef_loss"}
    logged = {tag for log in logs for tag in log.name_to_value if tag.startswith("train/")} - hosts_own
    assert logged == set(re.findall(r"`(train/\w+)`", README))


def test_the_table_of_arguments_has_the_defaults():
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \|", README, flags=re.MULTILINE)
    assert {name: float(default) for name, default, _ in rows} == SCALE_FREE
    assert {name: float(default) for name, _, default in rows} == PAPER
