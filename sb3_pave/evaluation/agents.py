"""Trained agents on disk: found, loaded and given their environment as RL Zoo's ``enjoy`` does it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import stable_baselines3 as sb3
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecNormalize

from sb3_pave.evaluation.errors import AgentError, NoModelError
from sb3_pave.evaluation.run_folder import model_file, read_settings


@dataclass(frozen=True)
class Agent:
    """
    A trained model on disk.

    :param algorithm: name of its algorithm in the zoo, ``sac`` or ``pave_sac`` for example
    :param run: name of the run, that of its folder or of the zip file; unique among the runs of a label
    :param model_path: the zip file
    :param stats_path: the zoo's folder with its hyperparameters and ``VecNormalize`` statistics, if there is one
    :param vec_normalize_path: ``VecNormalize`` statistics given by hand or saved with this model, in place of the zoo's
    :param label: what it is shown and pooled under with others of the same label; its algorithm by default
    """

    algorithm: str
    run: str
    model_path: Path
    stats_path: Path | None = None
    vec_normalize_path: Path | None = None
    label: str = ""

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", self.algorithm)

    @property
    def name(self) -> str:
        """:return: what messages call it"""
        return f"{self.label} {self.run}"

    def load(self, device: str = "auto") -> BaseAlgorithm:
        """
        :param device: PyTorch device
        :return: the model, see :func:`load_model`
        :raises AgentError: if it does not load
        """
        from rl_zoo3.utils import ALGOS

        return load_model(self.model_path, ALGOS.get(self.algorithm), device)

    def make_env(self, env_id: str, seed: int = 0, env_kwargs: dict[str, Any] | None = None) -> VecEnv:
        """
        Its environment, with the wrappers and the ``VecNormalize`` statistics that it was trained with.

        :param env_id: the environment
        :param seed: seed
        :param env_kwargs: arguments of the environment, over those that it was trained with
        :return: one environment; statistics are not updated and rewards are not normalised
        :raises AgentError: if the saved settings can't be read, or the statistics are missing or don't fit
        """
        from rl_zoo3.utils import create_test_env, get_saved_hyperparams

        arguments, _ = read_settings(self.stats_path)
        stats_path = None
        hyperparams: dict[str, Any] = {}
        if self.stats_path is not None:
            hyperparams, stats_path = get_saved_hyperparams(str(self.stats_path), norm_reward=False, test_mode=True)
        kwargs = dict(hyperparams.pop("env_kwargs", None) or {})
        kwargs.update(arguments.get("env_kwargs") or {})
        kwargs.update(env_kwargs or {})
        n_stack = 0
        if self.vec_normalize_path is not None:
            hyperparams["normalize"] = False
            n_stack = hyperparams.pop("frame_stack", 0)  # the zoo stacks what it has normalised
        try:
            env = create_test_env(
                env_id,
                stats_path=stats_path,
                seed=seed,
                should_render=False,
                hyperparams=hyperparams,
                env_kwargs=kwargs,
                vec_env_cls=DummyVecEnv,
            )
            if self.vec_normalize_path is not None:
                env = VecNormalize.load(str(self.vec_normalize_path), env)
                env.training = env.norm_reward = False
                if n_stack > 0:
                    env = VecFrameStack(env, n_stack)
        except Exception as error:
            raise AgentError(f"The environment {env_id} of {self.model_path} could not be made: {error}") from error
        return env

    def training_curves(self) -> dict[str, list[float]]:
        """
        What was measured while it was trained, from the ``evaluations.npz`` beside it.

        :return: ``timesteps``, ``return`` and, if :class:`sb3_pave.callbacks.SmoothnessEvalCallback` wrote them, ``sm`` and
            the other smoothness measures, means over the episodes of each evaluation; ``geometry_timesteps``,
            ``geometry_M_mean`` and the others. Empty if there is no such file.
        :raises AgentError: if the file can't be read
        """
        path = self.model_path.parent / "evaluations.npz"
        if not path.is_file():
            return {}
        try:
            with path.open("rb") as file, np.load(file) as saved:
                arrays = {"return" if key == "results" else key: saved[key] for key in saved if key != "successes"}
        except (OSError, EOFError, ValueError, BadZipFile) as error:
            raise AgentError(f"{path} could not be read: {error}") from error
        return {key: (value.mean(axis=1) if value.ndim == 2 else value).tolist() for key, value in arrays.items()}


def find_runs(
    folder: str | os.PathLike,
    algorithm: str,
    env_id: str,
    exp_ids: Sequence[int] | None = None,
    load_best: bool = False,
    skip: Callable[[str], None] | None = None,
) -> list[Agent]:
    """
    The runs of an algorithm in a log folder of the zoo.

    :param folder: the log folder
    :param algorithm: name of the algorithm in the zoo
    :param env_id: the environment
    :param exp_ids: numbers of the runs, 0 for the latest one with a model; None for all of them
    :param load_best: whether to take the best model of each run in place of the last
    :param skip: called with a sentence on each run without a model yet or whose settings can't be read, where all runs or
        the latest one are asked for; None makes it an error
    :return: the runs, each once
    :raises NoModelError: if no run has a model
    :raises AgentError: if the folder or a run that was asked for by its number is missing, or its settings can't be read
    """
    from huggingface_sb3 import EnvironmentName

    check_algorithm(algorithm, folder)
    of_algorithm, env_name = Path(folder, algorithm), EnvironmentName(env_id)
    numbers = _run_numbers(of_algorithm, env_name)
    # Where no run has a number, the zoo's 0 is the algorithm's folder itself
    if not numbers and (exp_ids is None or (0 in exp_ids and not any(of_algorithm.glob("*.zip")))):
        raise NoModelError(f"No run of {algorithm} on {env_id} in {of_algorithm}")

    def find(number: int) -> Agent:
        return _run(Path(folder), algorithm, env_id, number, load_best)

    found: list[Agent] = []
    for number in numbers if exp_ids is None else exp_ids:
        if exp_ids is None:
            found += _first_with_a_model([number], find, skip)
        elif number == 0 and numbers:
            found += _first_with_a_model(numbers[::-1], find, skip)
        else:
            found.append(find(number))
    if not found:
        raise NoModelError(
            f"No run of {algorithm} on {env_id} in {of_algorithm} has a model yet and settings that can be read"
        )
    return list({agent.model_path: agent for agent in found}.values())


def check_algorithm(algorithm: str, folder: str | os.PathLike | None = None) -> None:
    """
    :param algorithm: name of an algorithm
    :param folder: the log folder in which runs of it are looked for
    :raises AgentError: if there is no such folder, or the name is neither one of the zoo's nor that of a folder in it
    """
    from rl_zoo3.utils import ALGOS

    if folder is not None and not os.path.isdir(folder):
        raise AgentError(f"The log folder {folder} does not exist")
    known = [*ALGOS, *([] if folder is None else sorted(one.name for one in Path(folder).iterdir() if one.is_dir()))]
    if algorithm not in known:
        closest = difflib.get_close_matches(algorithm, known, n=1)
        hint = f"did you mean {closest[0]}?" if closest else f"known are {', '.join(sorted(ALGOS))}"
        raise AgentError(f"There is no algorithm {algorithm}: {hint}")


def _run_numbers(folder: Path, env_name: str) -> list[int]:
    from rl_zoo3.utils import get_latest_run_id

    latest = get_latest_run_id(str(folder), env_name)
    return [number for number in range(1, latest + 1) if (folder / f"{env_name}_{number}").is_dir()]


def _first_with_a_model(
    numbers: Sequence[int], find: Callable[[int], Agent], skip: Callable[[str], None] | None
) -> list[Agent]:
    """The first of some runs that can be found, alone in a list; an empty one if none can."""
    passed_over: list[str] = []
    agents: list[Agent] = []
    taken = ""
    for number in numbers:
        try:
            agents, taken = [find(number)], f"; run {number} is taken"
            break
        except AgentError as error:
            if skip is None:
                raise
            passed_over.append(str(error))
    for sentence in passed_over:
        assert skip is not None
        skip(sentence + taken)
    return agents


def _run(folder: Path, algorithm: str, env_id: str, number: int, load_best: bool) -> Agent:
    from huggingface_sb3 import EnvironmentName
    from rl_zoo3.utils import get_model_path

    env_name = EnvironmentName(env_id)
    try:
        _, model_path, log_path = get_model_path(number, str(folder), algorithm, env_name, load_best=load_best)
        settings = Path(log_path) / env_name
        read_settings(settings)
    except (AgentError, AssertionError, ValueError) as error:
        raise AgentError(f"Run {number} of {algorithm} on {env_id}: {error}") from error
    path = Path(model_path)
    return Agent(algorithm, Path(log_path).name, path, settings, own_statistics(path))


def from_zip(
    path: str | os.PathLike, env_id: str, algorithm: str | None = None, vec_normalize_path: str | os.PathLike | None = None
) -> Agent:
    """
    A model given as a zip file. If it lies in a folder of the zoo, the settings there are used.

    :param path: the zip file, with or without ``.zip``, or the folder of a run
    :param env_id: the environment
    :param algorithm: name of its algorithm in the zoo; None reads it from the file
    :param vec_normalize_path: saved ``VecNormalize`` statistics; None takes those saved with this very model, if there are any
    :return: the agent
    :raises AgentError: if a file is missing or is not a model
    """
    from huggingface_sb3 import EnvironmentName

    path = model_file(Path(path))
    if vec_normalize_path is not None and not Path(vec_normalize_path).is_file():
        raise AgentError(f"{vec_normalize_path} does not exist")
    stats_path = path.parent / EnvironmentName(env_id)
    return Agent(
        algorithm=algorithm or algorithm_name(path),
        run=path.stem,
        model_path=path,
        stats_path=stats_path if stats_path.is_dir() else None,
        vec_normalize_path=own_statistics(path) if vec_normalize_path is None else Path(vec_normalize_path),
    )


def own_statistics(path: Path) -> Path | None:
    """
    :param path: a model's zip file
    :return: the ``VecNormalize`` statistics saved with this very model, as :class:`sb3_pave.callbacks.SmoothnessEvalCallback`
        does it, None if there are none. The zoo's are those of the end of training.
    """
    statistics = path.with_name(f"{path.stem}_vecnormalize.pkl")
    return statistics if statistics.is_file() else None


def unused_statistics(path: Path) -> str | None:
    """
    :param path: zip file of a model that has no statistics and does not lie in a folder of the zoo
    :return: a sentence on statistics beside it that may be its own or another model's, None if there are none
    """
    statistics = path.with_name("vecnormalize.pkl")
    if not statistics.is_file():
        return None
    return f"{statistics} was not used for {path.name}: if it was trained with these statistics, name them by --vec-normalize"


def load_model(path: str | os.PathLike, algorithm: type[BaseAlgorithm] | None = None, device: str = "auto") -> BaseAlgorithm:
    """
    Load a saved model to look at it, not to train it: its replay buffer holds a single transition.

    :param path: the zip file
    :param algorithm: its class; None takes :func:`algorithm_class`
    :param device: PyTorch device
    :return: the model
    :raises AgentError: if it does not load
    """
    algorithm = algorithm or algorithm_class(path)
    kwargs: dict[str, Any] = {}
    if issubclass(algorithm, OffPolicyAlgorithm):
        # A buffer of another class may need an environment (hindsight replay)
        kwargs.update(buffer_size=1, optimize_memory_usage=False, replay_buffer_class=None, replay_buffer_kwargs={})
    # Schedules are pickled functions: not needed here, and they may not unpickle on another Python
    unused = {"learning_rate": 0.0, "lr_schedule": _zero, "clip_range": _zero}
    try:
        return algorithm.load(Path(path), custom_objects=unused, device=device, **kwargs)
    except Exception as error:
        raise AgentError(f"{path} does not load as {algorithm.__name__}: {_why_not(path, algorithm) or error}") from error


def check_spaces(agent: Agent, model: BaseAlgorithm, env: VecEnv) -> None:
    """
    :param agent: an agent
    :param model: its model
    :param env: its environment
    :raises AgentError: if the model was trained on observations or actions of another shape
    """
    for what in ("observation", "action"):
        trained, given = (_shape(getattr(one, f"{what}_space")) for one in (model, env))
        if trained != given:
            raise AgentError(
                f"{agent.model_path} was trained with {what}s of shape {trained}, but those of this environment have {given}: "
                "is it the environment that it was trained in, with the same wrappers?"
            )


def algorithm_class(path: str | os.PathLike) -> type[BaseAlgorithm]:
    """
    A class that loads a saved model. A zip file does not name its algorithm; its policy tells the family, and what is saved of
    its settings the member.

    :param path: the zip file
    :return: SAC, TD3, DDPG, PPO, A2C, or TQC, CrossQ, TRPO, ARS, RecurrentPPO if sb3-contrib is installed
    :raises AgentError: if the file is not a model of one of these
    """
    data = _zip_data(Path(path))
    policy_class = data.get("policy_class")
    for algorithm in _families():
        if isinstance(policy_class, type) and issubclass(policy_class, tuple(algorithm.policy_aliases.values())):
            return _member(algorithm, data)
    raise AgentError(f"{path}: a policy of {policy_class} is none of {', '.join(one.__name__ for one in _families())}")


def algorithm_name(path: str | os.PathLike) -> str:
    """
    :param path: the zip file
    :return: a name for its algorithm as in the zoo: ``sac``, ``pave_sac`` if it was trained with PAVE, ``caps_sac`` or
        ``caps_pave_sac`` if an actor-side method had part in it
    :raises AgentError: if the file is not a model of a known algorithm
    """
    name = algorithm_class(path).__name__.lower()
    name = "ppo_lstm" if name == "recurrentppo" else name
    data = _zip_data(Path(path))
    parts = (data.get("actor_side_method"), "pave" if "mpr_coef" in data else None, name)
    return "_".join(part for part in parts if part)


def _shape(space: spaces.Space) -> Any:
    """What a network has to fit; bounds may differ, with the arguments of an environment for example."""
    if isinstance(space, spaces.Dict):
        return {key: _shape(one) for key, one in sorted(space.spaces.items())}
    return getattr(space, "n", None) or space.shape


def _why_not(path: str | os.PathLike, algorithm: type[BaseAlgorithm]) -> str | None:
    """A sentence if a file is one of another algorithm, which the error of its loading does not say."""
    try:
        saved = algorithm_class(path)
    except AgentError:
        return None
    if issubclass(algorithm, saved) or issubclass(saved, algorithm):
        return None
    return f"it is a model of {saved.__name__} (without --algo, that is read from the file)"


def _families() -> list[type[BaseAlgorithm]]:
    """The first of them that has a policy's class is its family: the special ones come first."""
    try:
        from sb3_contrib import ARS, TQC, CrossQ, RecurrentPPO
    except ImportError:
        return [sb3.TD3, sb3.SAC, sb3.PPO]
    return [sb3.TD3, sb3.SAC, RecurrentPPO, sb3.PPO, TQC, CrossQ, ARS]


def _member(family: type[BaseAlgorithm], data: dict[str, Any]) -> type[BaseAlgorithm]:
    """Of algorithms that share their policies, the one that leaves these settings."""
    if family is sb3.TD3:
        # DDPG is TD3 without its tricks
        return sb3.DDPG if (data.get("policy_delay"), data.get("target_noise_clip")) == (1, 0.0) else sb3.TD3
    if family is sb3.PPO and "clip_range" not in data:
        if "cg_max_steps" in data:
            from sb3_contrib import TRPO

            return TRPO
        return sb3.A2C
    return family


def _zip_data(path: Path) -> dict[str, Any]:
    try:
        data, _, _ = load_from_zip_file(path, device="cpu", custom_objects={"lr_schedule": _zero, "clip_range": _zero})
    except Exception as error:
        raise AgentError(f"{path} is not a model saved by Stable-Baselines3: {error}") from error
    if data is None:
        raise AgentError(f"{path} holds no model, only parameters")
    return data


def _zero(_: float) -> float:
    return 0.0
