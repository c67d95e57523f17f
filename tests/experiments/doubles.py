"""Runs that take no time, for tests of who does what: a program of a line in the place of a training."""

import os
import sys
from pathlib import Path

from sb3_pave.experiments import Run, grid
from sb3_pave.experiments.files import write_json
from sb3_pave.experiments.job import Job
from sb3_pave.experiments.process import run_process


def quick_run(seed: int, program: str = "pass") -> Run:
    """A run whose process runs a program of Python."""
    return Run("Pendulum-v1", "quick", "td3", seed, steps=10, hyperparameters={"program": program}, device="cpu")


class QuickJob(Job):
    """In the place of training and evaluation, the run's program; each start of one is noted."""

    def _carry_out(self, path, heartbeat, environ):
        with (self.folder / "started.txt").open("a") as file:
            file.write(f"{self.run.key} {os.getpid()}\n")
        command = [sys.executable, "-S", "-c", self.run.hyperparameters["program"]]
        run_process(command, path / "log.txt", heartbeat, {**environ, "RUN": path.name})
        measured = {"evaluation": {"episodes": {"return": [-3.0, -1.0], "sm": [0.5]}}, "seconds": {"train": 7.0}}
        write_json(path / "result.json", {"key": self.run.key, **self.run.to_dict(), **measured})


def started(folder: Path) -> list[str]:
    """Keys of the runs that were started, once for each start."""
    file = folder / "started.txt"
    return [line.split()[0] for line in file.read_text().splitlines()] if file.exists() else []


def main() -> None:
    """A runner: ``python -m tests.experiments.doubles FOLDER N_RUNS PROGRAM BACKEND``."""
    folder, n_runs, program, backend = sys.argv[1:]
    grid.Job = QuickJob
    try:
        runs = [quick_run(seed, program) for seed in range(int(n_runs))]
        outcome = grid.run_grid(runs, folder, n_jobs=2, backend=backend, progress=False)
    except KeyboardInterrupt:
        sys.exit(130)
    print(len(outcome.done), "done")


if __name__ == "__main__":
    # Workers must find the job under its module's own name
    from tests.experiments import doubles

    doubles.main()
