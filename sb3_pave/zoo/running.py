"""Running the zoo's own commands with PAVE registered."""

import importlib
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sb3_pave.zoo.checks import refuse_misspelled_algorithm
from sb3_pave.zoo.registration import register


def run(module: str, function: str | None, argv: Sequence[str], prog: str, view_only: bool = False) -> None:
    """
    Run a command of the zoo as if it had been started by ``python -m {module} {argv}``.

    :param module: the zoo's module
    :param function: the function in it that is the command; None where the module itself is
    :param argv: the arguments after the command
    :param prog: how the command was started, for its usage line
    :param view_only: whether the command loads agents only to look at them
    :raises ZooError: if it was given what can't be
    """
    register(view_only=view_only)
    refuse_misspelled_algorithm(argv)
    if module == "rl_zoo3.push_to_hub":
        _make_hub_metadata_public()
    ffmpeg = _ffmpeg() if module in ("rl_zoo3.record_training", "rl_zoo3.push_to_hub") else nullcontext()
    with _arguments(prog, argv), _children_know_pave(), ffmpeg:
        if function is None:
            runpy.run_module(module, run_name="__main__")
        else:
            getattr(importlib.import_module(module), function)()


@contextmanager
def _arguments(prog: str, argv: Sequence[str]) -> Iterator[None]:
    before = sys.argv
    sys.argv = [prog, *argv]
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def _children_know_pave() -> Iterator[None]:
    """``record_training`` and ``benchmark`` start other commands of the zoo in processes: start them through us."""
    zoo_calls = subprocess.call

    def call(command: Any, *args: Any, **kwargs: Any) -> int:
        return zoo_calls(_through_pave(command), *args, **kwargs)

    subprocess.call = call  # type: ignore[assignment]
    try:
        yield
    finally:
        subprocess.call = zoo_calls


def _through_pave(command: Any) -> Any:
    match command:
        case ["python", "-m", str(module), *arguments] if module.startswith("rl_zoo3."):
            zoo_command = module.removeprefix("rl_zoo3.")
        # `benchmark` calls a script that exists in the zoo's source tree only
        case ["python", "enjoy.py", *arguments]:
            zoo_command = "enjoy"
        case _:
            return command
    return [sys.executable, "-m", "sb3_pave", zoo_command, *arguments]


@contextmanager
def _ffmpeg() -> Iterator[None]:
    """Some commands type ``ffmpeg`` into a shell: where the system has none, take the one that moviepy uses."""
    if shutil.which("ffmpeg"):
        yield
        return
    try:
        from imageio_ffmpeg import get_ffmpeg_exe
    except ModuleNotFoundError:
        yield
        return
    before = os.environ["PATH"]
    with tempfile.TemporaryDirectory() as folder:
        name = "ffmpeg.exe" if os.name == "nt" else "ffmpeg"
        shutil.copy(get_ffmpeg_exe(), Path(folder) / name)
        os.environ["PATH"] = os.pathsep.join((folder, before))
        try:
            yield
        finally:
            os.environ["PATH"] = before


def _make_hub_metadata_public() -> None:
    """``push_to_hub`` imports a function that version 3.2 of ``huggingface_sb3`` has made private, with another result."""
    hub = importlib.import_module("huggingface_sb3.push_to_hub")
    if not hasattr(hub, "generate_metadata"):

        def generate_metadata(*args: Any) -> dict[str, Any]:
            return hub._generate_metadata(*args).to_dict()

        hub.generate_metadata = generate_metadata  # type: ignore[attr-defined]
