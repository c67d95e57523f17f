"""Every example runs as a user would run it, for a few steps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SAYS = {
    "quickstart": "Action [",
    "pave_existing_agent": "400 steps, 200 of them with PAVE",
    "own_environment": "Last mean return",
    "goal_environment": "Success rate",
}


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == SAYS.keys()


@pytest.mark.parametrize("name", SAYS)
def test_example(name, tmp_path):
    pytest.importorskip("rich")  # the progress bar
    run = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", "200"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert SAYS[name] in run.stdout
    assert "Warning" not in run.stderr
