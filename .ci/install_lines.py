"""
Run README's install lines exactly as they stand there, in its order, in an environment of their own; after the first one,
README's first program, which has to do without extras.

    python .ci/install_lines.py FOLDER  # for the environment; dist/ holds the wheel
"""

import os
import shlex
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.test_readme import install_lines, programs  # noqa: E402


def main(folder: str) -> None:
    bin_folder = Path(folder).absolute() / "bin"
    venv.create(folder, clear=True, with_pip=True)
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "PIP_CONSTRAINT": str(ROOT / "constraints.txt"),  # the versions that the tests ran with
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("PYTHONPATH", None)
    for i, line in enumerate(install_lines()):
        print("+", line, flush=True)
        subprocess.run(["bash", "-c", line.replace("pip install", "pip install -q", 1)], cwd=ROOT, env=environment, check=True)
        if i == 0:
            (_, *program), *_ = programs()
            print("+ python", shlex.join(program), flush=True)
            with tempfile.TemporaryDirectory() as elsewhere:  # not the checkout: the package must be the installed one
                subprocess.run([bin_folder / "python", *program], cwd=elsewhere, env=environment, check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
