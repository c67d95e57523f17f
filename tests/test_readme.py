"""README's commands and programs, as they stand there but for the number of steps."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
STEPS = 300


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith(("sb3-pave ", "python "))]


def run(arguments: list[str], folder: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(arguments)}\n{done.stdout}\n{done.stderr}"


def shortened(command: str) -> list[str]:
    """The command with fewer steps, so that learning starts in them and there are finished episodes."""
    program, *arguments = shlex.split(re.sub(r"(-n|-n-timesteps) \d+", f"\\1 {STEPS}", command))
    if "train" in command:
        if "-params" not in arguments:
            arguments += ["-params"]
        at = arguments.index("-params") + 1
        arguments[at:at] = ["learning_starts:100"]
    return [sys.executable, *(["-m", "sb3_pave"] if program == "sb3-pave" else []), *arguments]


def test_every_command_runs(tmp_path):
    pytest.importorskip("rl_zoo3")
    assert len(commands()) >= 5
    for command in commands():
        run(shortened(command), tmp_path)


@pytest.mark.parametrize("program", blocks("python"), ids=lambda program: program.strip().splitlines()[-1][:30])
def test_every_program_runs(program, tmp_path):
    short, n_lengths = re.subn(r"total_timesteps=[\d_]+", f"total_timesteps={STEPS}", program)
    assert n_lengths > 0 or "total_timesteps" not in program
    run([sys.executable, "-c", short], tmp_path)


def test_files_that_it_names_exist():
    root = Path(__file__).parent.parent
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", README) if not target.startswith("http")]
    assert targets and all((root / target).exists() for target in targets)


def test_the_table_of_signals_is_complete():
    from sb3_pave import PAVE_SAC

    model = PAVE_SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, learning_starts=5, batch_size=4).learn(20)
    hosts_own = {"train/learning_rate", "train/n_updates", "train/actor_loss", "train/ent_coef", "train/ent_coef_loss"}
    logged = {tag for tag in model.logger.name_to_value if tag.startswith("train/")} - hosts_own
    assert logged == set(re.findall(r"`(train/\w+)`", README))
