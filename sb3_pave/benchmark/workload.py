"""What is timed: networks and batches, and the ways to do a gradient step on them."""

import importlib
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch import nn

import sb3_pave
from sb3_pave.algorithms.units import COEFS
from sb3_pave.baselines import METHODS
from sb3_pave.baselines.factory import with_method

_TRANSITIONS = 2000  # in the replay buffer that the batches are drawn from


@dataclass(frozen=True)
class Workload:
    """
    What is timed.

    :param algo: the host's name: td3, sac, ...
    :param env_id: a Gymnasium environment; None: random transitions of the two sizes below
    :param obs_dim: observation size
    :param action_dim: action size
    :param net_arch: hidden layers of actor and critics; None: the host's own
    :param batch_size: transitions of a gradient step
    :param device: of the networks
    :param threads: of PyTorch; None: as they are
    :param seed: of networks and batches
    :param gym_packages: to import, in each process, for they register the environment
    """

    algo: str = "td3"
    env_id: str | None = None
    obs_dim: int = 17
    action_dim: int = 6
    net_arch: tuple[int, ...] | None = None
    batch_size: int = 256
    device: str = "cpu"
    threads: int | None = None
    seed: int = 0
    gym_packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Variant:
    """
    One way to do a gradient step.

    :param name: its row in the table
    :param pave: whether it is PAVE; else the plain host
    :param kwargs: constructor arguments
    :param closed_form: False: the field by the autograd definition
    :param method: an actor-side method around it; None: there is none
    """

    name: str
    pave: bool = True
    kwargs: dict[str, Any] = field(default_factory=dict)
    closed_form: bool = True
    method: str | None = None

    @property
    def interval(self) -> int:
        """Of so many updates, one has PAVE's terms."""
        return self.kwargs.get("pave_interval", 1) if self.has_terms else 1

    @property
    def has_terms(self) -> bool:
        """Whether it is PAVE with weights that are not zero."""
        return self.pave and not _NO_TERMS.items() <= self.kwargs.items()


_NO_TERMS = dict.fromkeys(COEFS, 0)
HOST = Variant("host", pave=False)


def default_variants(workload: Workload) -> list[Variant]:
    """The host, the definition, and every mode that this machine can run; only those named graphs are recorded."""
    plain = {"cuda_graph": False}
    fourth = {**plain, "pave_interval": 4}
    return [
        HOST,
        Variant("autograd", kwargs=plain, closed_form=False),
        Variant("pave", kwargs=plain),
        Variant("compiled", kwargs={**plain, "compile": True}),
        Variant("every 4th update", kwargs=fourth),
        Variant("every 4th update, compiled", kwargs={**fourth, "compile": True}),
        *_on_cuda(workload),
    ]


def rival_variants() -> list[Variant]:
    """The actor-side methods around the host, with their default weights, and DAMPER around PAVE."""
    alone = [Variant(method, pave=False, method=method) for method in METHODS]
    return [*alone, Variant("damper and pave", kwargs={"cuda_graph": False}, method="damper")]


def _on_cuda(workload: Workload) -> list[Variant]:
    if th.device(workload.device).type != "cuda":
        return []
    return [
        Variant("host, graphs", kwargs={**_NO_TERMS, "cuda_graph": True}),
        Variant("graphs", kwargs={"cuda_graph": True}),
        Variant("graphs, compiled", kwargs={"cuda_graph": True, "compile": True}),
    ]


def make_model(workload: Workload, variant: Variant) -> OffPolicyAlgorithm:
    """
    An agent of the variant, with a replay buffer to draw from.

    :param workload: its networks and batch
    :param variant: host, PAVE or a rival
    :raises ValueError: if there is no such algorithm or environment, or the environment has no continuous actions
    """
    pave_class = _pave_class(workload.algo)
    kwargs = {"policy_kwargs": {}, **variant.kwargs}
    policy_kwargs = {"activation_fn": nn.SiLU, **kwargs.pop("policy_kwargs")}
    if workload.net_arch is not None:
        policy_kwargs["net_arch"] = list(workload.net_arch)
    algorithm = pave_class if variant.pave else host_class(pave_class)
    if variant.method is not None:
        algorithm = with_method(variant.method, algorithm)
    model: Any = algorithm(
        "MlpPolicy",
        _make_env(workload),
        batch_size=workload.batch_size,
        buffer_size=2 * _TRANSITIONS,
        learning_starts=_TRANSITIONS,
        policy_kwargs=policy_kwargs,
        device=workload.device,
        seed=workload.seed,
        **kwargs,
    )
    if not variant.closed_form:
        model.critic.__class__ = _without_closed_form(type(model.critic))
    return model.learn(_TRANSITIONS - 1)


def host_class(pave_class: type[OffPolicyAlgorithm]) -> type[OffPolicyAlgorithm]:
    """The SB3 class that a PAVE class extends."""
    return next(base for base in pave_class.__mro__ if base.__module__.partition(".")[0] != "sb3_pave")


def _pave_class(algo: str) -> type[OffPolicyAlgorithm]:
    names = {name.removeprefix("PAVE_").lower(): name for name in dir(sb3_pave) if name.startswith("PAVE_")}
    if algo.lower() not in names:
        raise ValueError(f"There is no algorithm {algo!r}; choose one of {', '.join(sorted(names))}.")
    return getattr(sb3_pave, names[algo.lower()])


class _RandomTransitions(gym.Env):
    """Observations of a given size at no cost, so that the updates are what takes time."""

    def __init__(self, obs_dim: int, action_dim: int):
        self.observation_space = spaces.Box(-np.inf, np.inf, (obs_dim,), np.float32)
        self.action_space = spaces.Box(-1, 1, (action_dim,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        return self._observation(), self.np_random.normal(), self.np_random.random() < 0.01, False, {}

    def _observation(self) -> np.ndarray:
        return self.np_random.standard_normal(self.observation_space.shape, dtype=np.float32)


def _make_env(workload: Workload) -> gym.Env:
    if workload.env_id is None:
        return _RandomTransitions(workload.obs_dim, workload.action_dim)
    for package in workload.gym_packages:
        importlib.import_module(package)
    try:
        env = gym.make(workload.env_id)
    except (gym.error.Error, ImportError) as error:
        raise ValueError(f"The environment {workload.env_id} can't be made: {error}") from error
    actions, observations = env.action_space, env.observation_space
    if not (isinstance(actions, spaces.Box) and np.issubdtype(actions.dtype, np.floating)):
        raise ValueError(f"{workload.env_id} has no continuous actions ({actions}), and so no action gradient.")
    if isinstance(observations, spaces.Dict):
        raise ValueError(f"{workload.env_id} has Dict observations; bench times MlpPolicy, which does not take them.")
    return env


def _without_closed_form(critic_class: type[nn.Module]) -> type[nn.Module]:
    """The same critic with a forward pass of its own, which the closed form does not serve."""

    def forward(self: Any, obs: th.Tensor, actions: th.Tensor) -> Any:
        return critic_class.forward(self, obs, actions)

    return type(f"Definition{critic_class.__name__}", (critic_class,), {"forward": forward})
