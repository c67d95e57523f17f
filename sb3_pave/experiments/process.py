"""Training and measuring a run, each in a process of its own."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sb3_pave.experiments.checkpoints import TRAINING_FILE, checkpoints, is_whole, steps_of
from sb3_pave.experiments.files import read_json, write_json
from sb3_pave.experiments.results import RESULT_FILE, make_result
from sb3_pave.experiments.runs import Run
from sb3_pave.experiments.tries import TRAINED_FILE, TRIES, TRY_FILE, next_try, trained_try, tries
from sb3_pave.experiments.zoo_file import full_entry

RUN_FILE, LOG_FILE = "run.json", "log.txt"

# Seconds between two looks at a process
POLL_INTERVAL = 0.2
# Of what a process printed, in the message of its failure
_LAST_LINES = 15

# As ``python -m sb3_pave``, but for files of the current folder, which do not stand in for what is installed
_SB3_PAVE = "import sys; sys.path.append(sys.path.pop(0)); from sb3_pave.commands.main import main; main()"

Heartbeat = Callable[[], None]


class RunFailed(Exception):
    """A process of a run has failed; the message holds the end of what it printed."""


def carry_out(run: Run, folder: Path, heartbeat: Heartbeat, environ: Mapping[str, str]) -> None:
    """
    Train and measure a run as far as that has not been done yet, and write its result.

    :param run: the run
    :param folder: its folder
    :param heartbeat: called a few times a second; what it raises ends the process and passes on
    :param environ: additions to the environment of its processes
    :raises RunFailed: if one of its processes has failed
    :raises OSError: if a file can't be written; what was done before is found again
    """
    attempt = trained_try(folder) or _trained_elsewhere(run, folder) or _train(run, folder, heartbeat, environ)
    trained = read_json(attempt / TRAINED_FILE)
    begun = time.monotonic()
    report = _measure(run, folder, attempt, heartbeat, environ)
    seconds = {"train": trained["seconds"], "evaluate": time.monotonic() - begun}
    how = read_json(attempt / TRY_FILE)
    write_json(folder / RESULT_FILE, make_result(run, trained, report, how["number"], how["resumed_from"], seconds))
    _tidy(folder, attempt)


def tidy(folder: Path) -> None:
    """
    What :func:`carry_out` does last, where it was stopped before.

    :param folder: folder of a run that has a result
    """
    attempt = trained_try(folder)
    if attempt is not None:
        _tidy(folder, attempt)


def agent_path(run: Run, logs: Path) -> Path:
    """
    :param run: a run
    :param logs: the zoo's log folder that it was trained into
    :return: its final agent
    """
    name = run.environment.replace("/", "-").replace(":", "-")
    return logs / run.algorithm / f"{name}_1" / f"{name}.zip"


def _train(run: Run, folder: Path, heartbeat: Heartbeat, environ: Mapping[str, str]) -> Path:
    checkpoint = _newest_checkpoint(folder)
    attempt = next_try(folder)
    attempt.mkdir(parents=True)
    resumed_from: list[int] = []
    if checkpoint is not None:
        resumed_before = read_json(checkpoint.parent / TRY_FILE)["resumed_from"]
        resumed_from = [*resumed_before, read_json(checkpoint / TRAINING_FILE)["steps"]]
    write_json(attempt / TRY_FILE, {"number": int(attempt.name), "resumed_from": resumed_from})
    command = _train_command(run, attempt, checkpoint, resumed_from)
    _run_command(command, run, folder / LOG_FILE, heartbeat, environ)
    trained = read_json(attempt / TRAINING_FILE)
    if trained["steps"] < run.steps:
        raise RunFailed(f"training ended after {trained['steps']} of {run.steps} steps")
    if not agent_path(run, attempt).is_file():
        raise RunFailed(f"training has left no agent {agent_path(run, attempt)}")
    write_json(attempt / TRAINED_FILE, trained)
    return attempt


def _train_command(run: Run, attempt: Path, checkpoint: Path | None, resumed_from: Sequence[int]) -> list[str]:
    """``sb3-pave train``, with all hyperparameters in one file, and our callbacks among them."""
    entry = full_entry(run)
    env_kwargs = entry.pop("env_kwargs", None) or {}
    own: dict[str, Any] = {"folder": str(attempt), "environment": run.environment, "runner": os.getpid()}
    own["checkpoint_steps"] = run.checkpoint_steps
    own["checkpoint"] = None if checkpoint is None else str(checkpoint)
    given = entry.get("callback") or []
    callbacks = list(given) if isinstance(given, list) else [given]
    if run.evaluation.every:
        callbacks.append("sb3_pave.callbacks.SmoothnessEvalCallback")
    entry["callback"] = [*callbacks, {"sb3_pave.experiments.callback.RunCallback": own}]
    conf = attempt / "conf.yml"
    conf.write_text(yaml.safe_dump({run.environment: entry}), encoding="utf-8")
    command = ["train", "--algo", run.algorithm, "--env", run.environment, "-conf", str(conf), "-f", str(attempt)]
    command += ["-n", str(run.steps), "--seed", str(_seed(run, resumed_from)), "--num-threads", str(run.threads)]
    command += ["--eval-freq", str(run.evaluation.every or -1), "--eval-episodes", str(run.evaluation.episodes)]
    if checkpoint is not None:
        command += ["-i", str(next(checkpoint.glob("*.zip")))]
    if env_kwargs:
        # Those of a file would not reach the environment of the evaluations
        command += ["--env-kwargs", *(f"{name}:{value!r}" for name, value in env_kwargs.items())]
    return command


def _seed(run: Run, resumed_from: Sequence[int]) -> int:
    """What is resumed must not meet the starts and the noise of its beginning again."""
    if not resumed_from:
        return run.seed
    digest = hashlib.sha256(f"{run.seed} {list(resumed_from)}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _measure(run: Run, folder: Path, attempt: Path, heartbeat: Heartbeat, environ: Mapping[str, str]) -> dict[str, Any]:
    how, base = run.evaluation, attempt / "evaluation"
    command = ["evaluate", str(agent_path(run, attempt)), "--env", run.environment, "--algo", run.algorithm]
    command += ["-n", str(how.episodes), "--seed", str(how.seed), "-o", str(base), "--overwrite", "--no-progress"]
    if how.robustness:
        command += ["--robustness", "--noise", *map(str, how.robustness)]
        command += ["--robustness-episodes", str(how.robustness_episodes)]
    if how.geometry:
        command.append("--geometry")
    _run_command(command, run, folder / LOG_FILE, heartbeat, environ)
    return read_json(base.with_suffix(".json"))


def _run_command(arguments: list[str], run: Run, log: Path, heartbeat: Heartbeat, environ: Mapping[str, str]) -> None:
    arguments = [*arguments, "--device", run.device]
    if run.gym_packages:
        arguments += ["--gym-packages", *run.gym_packages]
    threads = str(run.threads)
    fixed = {"PYTHONUNBUFFERED": "1", "MPLBACKEND": "agg", "SDL_VIDEODRIVER": "dummy"}
    fixed.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads))
    run_process([sys.executable, "-c", _SB3_PAVE, *arguments], log, heartbeat, {**fixed, **environ}, ["sb3-pave", *arguments])


def run_process(
    command: list[str], log: Path, heartbeat: Heartbeat, environ: Mapping[str, str], shown: Sequence[str] = ()
) -> None:
    """
    Run a command to its end, or end it with all that it has started.

    :param command: the command
    :param log: what it prints is added to this file
    :param heartbeat: called a few times a second; what it raises ends the command and passes on
    :param environ: additions to its environment
    :param shown: what log and errors call it; by default as it is
    :raises RunFailed: if it has failed
    """
    with log.open("ab") as output:
        output.write(f"$ {' '.join(shown or command)}\n".encode())
        output.flush()
        begin = output.tell()
        # A session of its own: Ctrl-C is for the runner, and the zoo would take it for the end of the training
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environ},
            start_new_session=True,
        )
        try:
            while True:
                try:
                    code = process.wait(timeout=POLL_INTERVAL)
                    break
                except subprocess.TimeoutExpired:
                    heartbeat()
        finally:
            if process.returncode is None:
                _kill(process)
    if code != 0:
        raise RunFailed(f"{' '.join((shown or command)[:2])} ended {_how(code)}:\n{_end_of(log, begin)}")


def _kill(process: subprocess.Popen) -> None:
    """End a process and those that it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _how(code: int) -> str:
    if code > 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"


def _end_of(log: Path, begin: int) -> str:
    with log.open("rb") as file:
        file.seek(begin)
        return "\n".join(file.read().decode(errors="replace").splitlines()[-_LAST_LINES:])


def _trained_elsewhere(run: Run, folder: Path) -> Path | None:
    """
    A copy of the agent of a run that differs in how it was measured, or in what its method is called; or of this one, whose
    result has been lost.
    """
    for other in sorted(folder.parent.glob(f"*-seed{run.seed}-*")):
        if (other / "logs" / TRAINED_FILE).is_file() and _training_key(other, run.method) == run.training_key:
            copy = folder / TRIES / "unfinished"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(other / "logs", copy)
            return copy.rename(next_try(folder))
    return None


def _training_key(folder: Path, method: str) -> str | None:
    """That of the run in a folder, were its method called so: no training knows its name."""
    try:
        return dataclasses.replace(Run.from_dict(read_json(folder / RUN_FILE)), method=method).training_key
    except ValueError:  # it can't be read, or is of another format
        return None


def _newest_checkpoint(folder: Path) -> Path | None:
    """The newest one that is whole; the log names those that are not."""
    found = [checkpoint for attempt in tries(folder) for checkpoint in checkpoints(attempt)]
    for checkpoint in sorted(found, key=steps_of, reverse=True):
        if is_whole(checkpoint):
            return checkpoint
        with (folder / LOG_FILE).open("a", encoding="utf-8") as log:
            log.write(f"{checkpoint} is damaged: not used\n")
    return None


def _tidy(folder: Path, attempt: Path) -> None:
    """Keep what the last try has left as a log folder of the zoo, without checkpoints; the other tries are of no use."""
    for checkpoint in checkpoints(attempt):
        shutil.rmtree(checkpoint, ignore_errors=True)
    logs = folder / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    attempt.rename(logs)
    shutil.rmtree(folder / TRIES, ignore_errors=True)
