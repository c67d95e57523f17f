"""Whether runs that are pooled are runs of one setting, as far as the zoo wrote down how they were trained."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from zipfile import BadZipFile, ZipFile

from sb3_pave.evaluation.agents import Agent
from sb3_pave.evaluation.run_folder import read_settings

# Runs of one setting may differ in their seed, in what is shown meanwhile and in how fast the same is computed
_NEVER_MATTERS = {"seed", "device", "verbose", "tensorboard_log", "stats_window_size", "compile", "cuda_graph"}
_LONGEST = 60


def differences(agents: Sequence[Agent], remedy: str) -> list[str]:
    """
    :param agents: agents; those of one label are pooled
    :param remedy: what to do if they should not be
    :return: a sentence for each label whose agents were not trained in the same way
    """
    notes = []
    for label in dict.fromkeys(agent.label for agent in agents):
        recipes = {agent.run: _recipe(agent) for agent in agents if agent.label == label}
        differing = []
        for name in dict.fromkeys(name for recipe in recipes.values() for name in recipe):
            # Of a zip file alone, only the algorithm is known
            known = {run: recipe.get(name) for run, recipe in recipes.items() if name == "algorithm" or len(recipe) > 1}
            if text := _difference(known):
                differing.append(f"{name} ({text})")
        if differing:
            notes.append(f"Runs of {label} differ in {', '.join(differing)}: they are pooled as runs of one setting; {remedy}")
    return notes


def _recipe(agent: Agent) -> dict[str, Any]:
    """How an agent was trained, but for its seed; of a model in no folder of the zoo, its algorithm alone."""
    recipe: dict[str, Any] = {"algorithm": agent.algorithm}
    arguments, hyperparameters = read_settings(agent.stats_path)
    if not arguments and not hyperparameters:
        return recipe
    given = arguments.get("n_timesteps") or 0
    steps = given if given > 0 else hyperparameters.get("n_timesteps")
    own = {name: value for name, value in hyperparameters.items() if name not in _NEVER_MATTERS}
    return {
        **recipe,
        **own,
        "n_timesteps": _steps_done(agent, steps),
        "env_kwargs": {**(hyperparameters.get("env_kwargs") or {}), **(arguments.get("env_kwargs") or {})},
        "trained_agent": arguments.get("trained_agent"),
    }


def _steps_done(agent: Agent, planned: float | None) -> float | None:
    """The steps that a run was asked for, or those of its last model where it was ended before."""
    if planned is None or agent.stats_path is None or agent.model_path.stem != agent.stats_path.name:
        return planned
    try:
        with ZipFile(agent.model_path) as file:
            done = json.loads(file.read("data")).get("num_timesteps")
    except (OSError, KeyError, ValueError, BadZipFile):  # what does not load is said when it is loaded
        return planned
    return done if isinstance(done, int) and done < planned else planned


def _difference(values: Mapping[str, Any]) -> str | None:
    """The values of a setting, and which runs have other ones than most; None if all have the same."""
    texts = {run: _text(value) for run, value in values.items()}
    (usual, _), *others = Counter(texts.values()).most_common() or [("", 0)]
    if not others:
        return None
    runs = {text: ", ".join(run for run, own in texts.items() if own == text) for text, _ in others}
    return "; ".join([_shortened(usual), *(f"{_shortened(text)} in {of}" for text, of in runs.items())])


def _text(value: Any) -> str:
    """The same for equal settings, however they were written."""
    if value is None or value == "" or value == {}:
        return "none"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_text(one)}" for key, one in sorted(value.items(), key=str)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_text, value)) + "]"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    # An object's address is not its value
    return re.sub(r" at 0x[0-9a-f]+", "", value if isinstance(value, str) else repr(value))


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
