"""Running sb3-pave, and a run of each algorithm to look at."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ALGORITHMS = ("pave_td3", "pave_sac")

# 200 steps are one episode of Pendulum; the last 50 of them train
SHORT = ("--env", "Pendulum-v1", "-n", "200", "--seed", "0", "--eval-episodes", "1", "--device", "cpu")
SMALL = ("learning_starts:150", "batch_size:8", "buffer_size:1000")

Command = Callable[..., None]


def run_command(*argv: str | Path) -> None:
    """
    ``sb3-pave {argv}``, in this process: importing the zoo takes seconds.

    Some of the zoo's commands run as ``__main__``, which warns if the same module has been imported before; in a process
    of its own it never has.
    """
    pytest.importorskip("rl_zoo3")
    from sb3_pave.commands.main import main

    for module in ("rl_zoo3.load_from_hub", "rl_zoo3.record_video"):
        sys.modules.pop(module, None)
    main([str(argument) for argument in argv])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: with several workers the others go on meanwhile, and nobody waits for them at the end."""
    items.sort(key=lambda item: item.path.name not in ("test_readme.py", "test_learns.py", "test_trainings.py"))


@pytest.fixture
def sb3_pave_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """``sb3-pave``, started in an empty folder on a machine without a screen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # to which commands add the folder
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return run_command


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A log folder with a short run of each algorithm on Pendulum-v1, buffer, checkpoints and evaluations included."""
    folder = tmp_path_factory.mktemp("trained") / "logs"
    for algo in ALGORITHMS:
        run_command(
            *("train", "--algo", algo, *SHORT, "-f", folder, "-params", *SMALL, "-P"),
            *("--eval-freq", "100", "--eval-episodes", "2", "--save-freq", "100", "--save-replay-buffer"),
        )
    yield folder
