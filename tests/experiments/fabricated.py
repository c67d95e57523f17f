"""Results of a grid that nobody has run, in the format of those that somebody has."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np


def fabricated_result(method: str, seed: int, returns: list[float], sms: list[float], **changes: Any) -> dict[str, Any]:
    """
    :param method: name of the method
    :param seed: its seed
    :param returns: return of each episode
    :param sms: sm of each episode
    :param changes: other entries of the result
    :return: what its result.json holds
    """
    result = {
        "format": 1,
        "environment": "Pendulum-v1",
        "method": method,
        "algorithm": method.lower(),
        "seed": seed,
        "steps": 40_000,
        "hyperparameters": {},
        "tries": 1,
        "resumed_from": [],
        "seconds": {"train": 90.0, "evaluate": 3.0},
        "versions": {},
        "device": "cpu",
        "evaluation": {"algorithm": method.lower(), "run": "run", "episodes": {"return": returns, "sm": sms}},
        "settings": {"deterministic": True, "seed": 0, "control_rate": 20.0},
        "curves": {},
        **changes,
    }
    determining = [result[name] for name in ("environment", "method", "algorithm", "seed", "steps", "hyperparameters")]
    result.setdefault("key", hashlib.sha256(json.dumps(determining).encode()).hexdigest()[:12])
    return result


def write_result(folder: Path, result: dict[str, Any]) -> Path:
    """
    :param folder: folder of the grid
    :param result: a result
    :return: its file
    """
    path = folder / f"{result['environment']}-{result['method']}-seed{result['seed']}-{result['key']}" / "result.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, allow_nan=False))
    return path


# Levels that the methods end at: return, sm, wall time in minutes
TASKS = {
    "Pendulum-v1": {"TD3": (-155, 1.6, 6), "PAVE": (-156, 0.33, 13), "CAPS": (-158, 0.52, 8), "DAMPER": (-156, 0.41, 7)},
    "Hopper-v5": {"TD3": (2900, 1.9, 30), "PAVE": (2950, 0.8, 61), "CAPS": (2500, 1.0, 40), "DAMPER": (3050, 0.7, 33)},
}


def write_grid(folder: Path, n_seeds: int = 5) -> None:
    """
    A grid that looks like a real one.

    :param folder: where to
    :param n_seeds: seeds of each method
    """
    rng = np.random.default_rng(0)
    for environment, methods in TASKS.items():
        for method, (level, sm, minutes) in methods.items():
            for seed in range(1, n_seeds + 1):
                write_result(folder, _realistic(rng, environment, method, seed, level, sm, minutes))


def _realistic(
    rng: np.random.Generator, environment: str, method: str, seed: int, level: float, sm: float, minutes: float
) -> dict[str, Any]:
    spread = abs(level) * (0.5 if level < 0 else 0.06)
    sm_of_run = sm * rng.lognormal(0.0, 0.5 if method == "TD3" else 0.08)
    returns = level + abs(level) * 0.02 * rng.normal() + spread * rng.normal(size=10)
    noisy = {"return": list(returns * 1.01), "sm": list(sm_of_run * 2.0 * rng.lognormal(0.0, 0.1, 10))}
    steps = np.arange(2000, 40_001, 2000)
    progress = 1.0 - np.exp(-steps / 8000.0)
    start = -1400.0 if level < 0 else 10.0
    curve = start + (level - start) * progress + 0.03 * abs(level - start) * rng.normal(size=len(steps))
    smoothness = sm_of_run * (0.3 + progress) * rng.lognormal(0.0, 0.15, len(steps))
    bound = None if method == "TD3" and seed == 1 else 20.0 * sm * rng.lognormal(0.0, 0.2)
    return fabricated_result(
        method,
        seed,
        list(returns),
        list(sm_of_run * rng.lognormal(0.0, 0.1, 10)),
        environment=environment,
        seconds={"train": 60.0 * minutes * rng.lognormal(0.0, 0.1), "evaluate": 4.0},
        curves={"timesteps": steps.tolist(), "return": list(curve), "sm": list(smoothness)},
        evaluation={
            "algorithm": method.lower(),
            "run": "run",
            "episodes": {"return": list(returns), "sm": list(sm_of_run * rng.lognormal(0.0, 0.1, 10))},
            "robustness": [{"noise_level": 0.1, "episodes": noisy}],
            "geometry": {"bound_median": bound, "negative_definite_rate": 0.9 + 0.1 * rng.random()},
        },
    )
