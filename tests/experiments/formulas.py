"""Searches whose runs are replaced by formulas: no run takes time."""

import math

from sb3_pave.experiments.files import write_json
from sb3_pave.experiments.job import Job
from sb3_pave.experiments.process import RunFailed
from sb3_pave.experiments.search import search
from tests.experiments.fabricated import fabricated_result

SMALL = {"learning_starts": 200, "batch_size": 8, "buffer_size": 1000, "policy_kwargs": {"net_arch": [8]}}
SPECIFICATION = {
    "environments": ["Pendulum-v1"],
    "seeds": [1, 2],
    "steps": 260,
    "method": {"algorithm": "pave_sac", "hyperparameters": SMALL},
    "search": {"mpr_coef": {"low": 0.01, "high": 10.0, "log": True}},
    "plain": {"algorithm": "sac", "hyperparameters": SMALL},
    "evaluation": {"episodes": 2, "every": 0},
}


def values_at(mpr_coef, seed):
    """Smoother with a larger weight; beyond 1 at the cost of return. The plain agent has sm 1 and return -100."""
    x = math.log10(mpr_coef)
    return -100.0 - 10.0 * max(x, 0.0) ** 2, 1.0 - 0.3 * (x + 2.0) + 0.01 * (seed - 1)


class FormulaJob(Job):
    """In the place of training and evaluation, :func:`values_at`; each run is noted."""

    def _carry_out(self, path, heartbeat, environ):
        run = self.run
        with (self.folder / "started.txt").open("a") as file:
            file.write(f"{run.key}\n")
        if run.hyperparameters.get("mpr_coef", 0.0) > FormulaJob.fails_beyond:
            raise RunFailed("it diverged")
        total, sm = values_at(run.hyperparameters.get("mpr_coef", 0.01), run.seed)
        result = fabricated_result(run.method, run.seed, [total - 20.0, total + 20.0], [sm, sm], key=run.key)
        write_json(path / "result.json", {**result, "environment": run.environment})

    fails_beyond = math.inf


def quick(specification, folder, n_trials, **arguments):
    return search(specification, folder, n_trials, progress=False, **{"sampler_seed": 0, **arguments})


def n_started(folder):
    return len((folder / "runs" / "started.txt").read_text().split())
