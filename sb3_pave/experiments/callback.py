"""What a run leaves behind while it trains: how far it is, its curves, its checkpoints."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch as th
from huggingface_sb3 import EnvironmentName
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter
from stable_baselines3.her import HerReplayBuffer

from sb3_pave.evaluation.nested_callbacks import flattened
from sb3_pave.evaluation.undisturbed import end_last_episode
from sb3_pave.experiments.checkpoints import TRAINING_FILE, save_checkpoint
from sb3_pave.experiments.files import read_json, write_json
from sb3_pave.experiments.tries import STEPS_FILE

# Seconds between two notes of how far it is, and looks whether its runner still lives
NOTE_INTERVAL = 1.0


class RunCallback(BaseCallback):
    """
    Of a run of a grid, given to the zoo by its ``callback`` entry.

    - Notes in ``{folder}/steps.txt`` how far the run is.
    - Keeps curves: ``return``, ``length``, ``sm`` and the other means of each evaluation, and beside them the latest value
      of every ``train/…`` signal. They are read where the logger writes them, since it forgets them then.
    - Every ``checkpoint_steps`` saves model, replay buffer, ``VecNormalize`` statistics and curves as a checkpoint.
    - At the end writes ``{folder}/training.json``: ``steps``, ``seconds``, ``device``, ``curves`` and ``signals``, the latest
      values of training.
    - Ends the process when its runner has died: nobody would collect what it makes.

    :param folder: where to
    :param environment: id of the environment
    :param runner: process id of the runner, the parent of this process
    :param checkpoint_steps: steps between checkpoints; 0 for none
    :param checkpoint: the checkpoint that this training continues; None if it starts
    """

    def __init__(self, folder: str, environment: str, runner: int, checkpoint_steps: int = 0, checkpoint: str | None = None):
        super().__init__()
        self.folder = Path(folder)
        self.environment = environment
        self.runner = runner
        self.checkpoint_steps = checkpoint_steps
        self.checkpoint = checkpoint
        self.curves = Curves()
        self._started = time.monotonic()
        self._seconds_before = 0.0
        self._next_note = 0.0
        self._next_checkpoint = checkpoint_steps

    def _on_training_start(self) -> None:
        self._check_runner()
        if self.checkpoint is not None:
            self._continue(read_json(Path(self.checkpoint) / TRAINING_FILE))
        self.logger.output_formats.append(self.curves)

    def _continue(self, before: Mapping[str, Any]) -> None:
        """The zoo has loaded agent, buffer and statistics, but begins to count anew: steps, and with them evaluations."""
        steps = before["steps"]
        self.model.num_timesteps = steps
        self.curves.rows = list(before["curves"])
        self.curves.signals = dict(before.get("signals", {}))
        self._seconds_before = before["seconds"]
        self._next_checkpoint = steps + self.checkpoint_steps
        buffer = getattr(self.model, "replay_buffer", None)
        if isinstance(buffer, ReplayBuffer) and not isinstance(buffer, HerReplayBuffer) and buffer.size() > 0:
            end_last_episode(buffer)  # in the middle of which the checkpoint was saved; HER's the zoo ends itself
        for callback in flattened(self.locals["callback"]):
            callback.n_calls = steps // self.training_env.num_envs
            callback.num_timesteps = steps

    def _on_step(self) -> bool:
        if time.monotonic() >= self._next_note:
            self._check_runner()
            self._note()
        return True

    def _on_rollout_start(self) -> None:
        # Between steps: the last transition is stored, evaluated and trained on
        if self.checkpoint_steps and self.model.num_timesteps >= self._next_checkpoint:
            save_checkpoint(self.model, self.folder, EnvironmentName(self.environment), self._training())
            self._next_checkpoint = self.model.num_timesteps + self.checkpoint_steps

    def _on_training_end(self) -> None:
        self._note()
        write_json(self.folder / TRAINING_FILE, self._training())

    def _check_runner(self) -> None:
        if os.getppid() != self.runner:
            print("The runner of this grid has died: so does this run")
            os._exit(1)

    def _note(self) -> None:
        # For eyes only: where the disk is full, what matters will say so
        with contextlib.suppress(OSError):
            (self.folder / STEPS_FILE).write_text(str(self.num_timesteps))
        self._next_note = time.monotonic() + NOTE_INTERVAL

    def _training(self) -> dict[str, Any]:
        return {
            "steps": self.model.num_timesteps,
            "seconds": self._seconds_before + time.monotonic() - self._started,
            "device": _device_name(self.model.device),
            "curves": self.curves.rows,
            # Also what the logger has not written yet: it is recorded after an evaluation and before a checkpoint
            "signals": self.curves.signals | _signals(_numbers(self.logger.name_to_value)),
        }


class Curves(KVWriter):
    """What the logger writes at evaluations, a row for each, with the signals of training that it wrote last."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.signals: dict[str, float] = {}

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        numbers = _numbers(key_values)
        self.signals.update(_signals(numbers))
        if "eval/mean_reward" not in numbers:
            return
        measured = {_measure(key): value for key, value in numbers.items() if key.startswith(("eval/", "geometry/"))}
        self.rows.append({"timesteps": step, **measured, **self.signals})

    def close(self) -> None:
        pass


def _measure(key: str) -> str:
    group, _, name = key.partition("/")
    known = {"mean_reward": "return", "mean_ep_length": "length"}
    return f"geometry_{name}" if group == "geometry" else known.get(name, name)


def _numbers(logged: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in logged.items() if not isinstance(value, str) and _is_scalar(value)}


def _signals(numbers: Mapping[str, float]) -> dict[str, float]:
    return {key: value for key, value in numbers.items() if key.startswith("train/")}


def _is_scalar(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _device_name(device: th.device) -> str:
    return th.cuda.get_device_name(device) if device.type == "cuda" else str(device)
