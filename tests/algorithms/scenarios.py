"""What a user can combine with an algorithm of SB3, each as a short training run."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import TQC, CrossQ
from sb3_contrib.crossq.policies import CrossQPolicy
from sb3_contrib.tqc.policies import TQCPolicy
from stable_baselines3 import DDPG, SAC, TD3, HerReplayBuffer
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv, SimpleMultiObsEnv
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import nn

from sb3_pave import PAVE_DDPG, PAVE_SAC, PAVE_TD3, PAVE_TQC, PAVE_CrossQ
from tests.algorithms.environments import RandomObservationEnv

ALGORITHMS = (PAVE_TD3, PAVE_SAC, PAVE_DDPG, PAVE_TQC, PAVE_CrossQ)
ALL = (TD3, SAC, DDPG, TQC, CrossQ)
# CrossQ has no policies for images and Dict observations
EVERY_POLICY = (TD3, SAC, DDPG, TQC)
ENTROPY = (SAC, TQC, CrossQ)
HAS_N_STEPS = "n_steps" in inspect.signature(TD3.__init__).parameters


class NormalizedExtractor(FlattenExtractor):
    """Flattens and passes through batch normalisation."""

    def __init__(self, observation_space: spaces.Box):
        super().__init__(observation_space)
        self.norm = nn.BatchNorm1d(self.features_dim)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.norm(super().forward(observations))


class DroppingExtractor(BaseFeaturesExtractor):
    """A layer with dropout."""

    def __init__(self, observation_space: spaces.Box):
        super().__init__(observation_space, 8)
        self.layers = nn.Sequential(nn.Linear(observation_space.shape[0], 8), nn.Tanh(), nn.Dropout(0.5))

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.layers(observations)


class SmallCnn(BaseFeaturesExtractor):
    def __init__(self, observation_space: spaces.Box):
        super().__init__(observation_space, 8)
        self.cnn = nn.Sequential(nn.Conv2d(observation_space.shape[0], 2, 8, 8), nn.SiLU(), nn.Flatten(), nn.LazyLinear(8))
        self.cnn(th.zeros(1, *observation_space.shape))

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.cnn(observations)


class MyTD3Policy(TD3Policy):
    """A user's own policy."""


class MySACPolicy(SACPolicy):
    """A user's own policy."""


class MyTQCPolicy(TQCPolicy):
    """A user's own policy."""


class MyCrossQPolicy(CrossQPolicy):
    """A user's own policy."""


class Scenario(NamedTuple):
    """
    :param env: makes the environment
    :param kwargs: arguments of the algorithm, ``policy`` among them
    :param hosts: the host classes that have the feature
    """

    env: Callable[[], Any]
    kwargs: dict[str, Any]
    hosts: tuple[type[BaseAlgorithm], ...] = ALL


def _pendulum() -> gym.Env:
    return gym.make("Pendulum-v1")


def _images() -> gym.Env:
    return RandomObservationEnv(spaces.Box(0, 255, (40, 40, 1), np.uint8))


def _mixed_dict() -> gym.Env:
    space = spaces.Dict(
        box=spaces.Box(-1, 1, (3,), np.float32),
        kind=spaces.Discrete(3),
        flags=spaces.MultiBinary(2),
        levels=spaces.MultiDiscrete([2, 3]),
    )
    return RandomObservationEnv(space)


def _policy(**policy_kwargs: Any) -> dict[str, Any]:
    return {"policy": "MlpPolicy", "policy_kwargs": {"net_arch": [16, 16], **policy_kwargs}}


def _noise(kind: type) -> dict[str, Any]:
    return {**_policy(), "action_noise": kind(np.zeros(1), 0.1 * np.ones(1))}


def _linear_schedule(progress_remaining: float) -> float:
    return 1e-3 * progress_remaining


SCENARIOS: dict[str, Scenario] = {
    "mlp": Scenario(_pendulum, _policy()),
    "autograd_path": Scenario(_pendulum, _policy(activation_fn=nn.Softsign)),
    "cnn": Scenario(_images, {"policy": "CnnPolicy", "policy_kwargs": {"net_arch": [16]}}, EVERY_POLICY),
    "cnn_shared": Scenario(
        _images,
        {
            "policy": "CnnPolicy",
            "policy_kwargs": {"net_arch": [16], "share_features_extractor": True, "features_extractor_class": SmallCnn},
        },
        EVERY_POLICY,
    ),
    "images_through_an_extractor": Scenario(
        _images, {**_policy(features_extractor_class=SmallCnn), "policy": "MlpPolicy"}, (CrossQ,)
    ),
    "multi_input": Scenario(
        lambda: SimpleMultiObsEnv(discrete_actions=False),
        {
            "policy": "MultiInputPolicy",
            "policy_kwargs": {"net_arch": [16], "features_extractor_kwargs": {"cnn_output_dim": 8}},
        },
        EVERY_POLICY,
    ),
    "mixed_dict": Scenario(_mixed_dict, {"policy": "MultiInputPolicy", "policy_kwargs": {"net_arch": [16]}}, EVERY_POLICY),
    "her": Scenario(
        lambda: BitFlippingEnv(n_bits=3, continuous=True, max_steps=5),
        {
            "policy": "MultiInputPolicy",
            "policy_kwargs": {"net_arch": [16]},
            "replay_buffer_class": HerReplayBuffer,
            "replay_buffer_kwargs": {"n_sampled_goal": 2},
            "mpr_coef": 0.0,  # every entry of the observation is binary
        },
        EVERY_POLICY,
    ),
    "n_steps": Scenario(_pendulum, {**_policy(), "n_steps": 3}),
    "memory_optimized": Scenario(
        _pendulum,
        {
            **_policy(),
            "optimize_memory_usage": True,
            "replay_buffer_kwargs": {"handle_timeout_termination": False},
        },
    ),
    "vec_normalize": Scenario(lambda: VecNormalize(make_vec_env("Pendulum-v1", 1)), _policy()),
    "several_envs": Scenario(
        lambda: make_vec_env("Pendulum-v1", 3), {**_policy(), "train_freq": (2, "step"), "gradient_steps": -1}
    ),
    "episodes": Scenario(_pendulum, {**_policy(), "train_freq": (1, "episode"), "gradient_steps": 20}),
    "batch_norm": Scenario(_pendulum, _policy(features_extractor_class=NormalizedExtractor)),
    "dropout": Scenario(_pendulum, _policy(features_extractor_class=DroppingExtractor)),
    "linear_critic": Scenario(_pendulum, _policy(net_arch={"pi": [8], "qf": []})),
    "separate_arch": Scenario(_pendulum, _policy(net_arch={"pi": [8], "qf": [16, 8, 8]})),
    "one_critic": Scenario(_pendulum, _policy(n_critics=1), (TD3, SAC, TQC, CrossQ)),
    "three_critics": Scenario(_pendulum, _policy(n_critics=3)),
    "adamw": Scenario(
        _pendulum, _policy(optimizer_class=th.optim.AdamW, optimizer_kwargs={"weight_decay": 1e-3, "betas": (0.8, 0.99)})
    ),
    "normal_noise": Scenario(_pendulum, _noise(NormalActionNoise)),
    "ou_noise": Scenario(_pendulum, _noise(OrnsteinUhlenbeckActionNoise)),
    "schedule": Scenario(_pendulum, {**_policy(), "learning_rate": _linear_schedule}),
    "float64": Scenario(lambda: RandomObservationEnv(spaces.Box(-1, 1, (3,), np.float64)), _policy()),
    "large_batch": Scenario(_pendulum, {**_policy(), "batch_size": 200}),
    "policy_delay": Scenario(_pendulum, {**_policy(), "policy_delay": 4}, (TD3, CrossQ)),
    "noisy_target": Scenario(_pendulum, {**_policy(), "target_policy_noise": 1.0, "target_noise_clip": 2.0}, (TD3,)),
    "fixed_entropy": Scenario(_pendulum, {**_policy(), "ent_coef": 0.2}, ENTROPY),
    "entropy_start": Scenario(_pendulum, {**_policy(), "ent_coef": "auto_0.1", "target_entropy": -0.5}, ENTROPY),
    "gsde": Scenario(_pendulum, {**_policy(), "use_sde": True, "sde_sample_freq": 4, "use_sde_at_warmup": True}, ENTROPY),
    "target_interval": Scenario(_pendulum, {**_policy(), "target_update_interval": 3}, (SAC, TQC)),
    "own_td3_policy": Scenario(_pendulum, {**_policy(), "policy": MyTD3Policy}, (TD3, DDPG)),
    "own_sac_policy": Scenario(_pendulum, {**_policy(), "policy": MySACPolicy}, (SAC,)),
    "own_tqc_policy": Scenario(_pendulum, {**_policy(), "policy": MyTQCPolicy}, (TQC,)),
    "own_crossq_policy": Scenario(_pendulum, {**_policy(), "policy": MyCrossQPolicy}, (CrossQ,)),
    "few_quantiles": Scenario(_pendulum, {**_policy(n_quantiles=5), "top_quantiles_to_drop_per_net": 1}, (TQC,)),
    "after_renorm_warmup": Scenario(_pendulum, _policy(renorm_warmup_steps=5), (CrossQ,)),
    "without_batch_norm": Scenario(_pendulum, _policy(batch_norm=False), (CrossQ,)),
}

PAVE_ONLY = ("mpr_coef", "vfc_coef", "curv_coef", "mpr_sigma", "curv_delta")


def host_of(algorithm: type[BaseAlgorithm]) -> type[BaseAlgorithm]:
    """The algorithm of SB3 or sb3-contrib that a PAVE class extends."""
    return next(base for base in algorithm.__mro__ if base.__module__.split(".")[0] in ("stable_baselines3", "sb3_contrib"))


def layers_of(network: nn.Module, kind: type[nn.Module]) -> list[Any]:
    """The network's layers of a kind; batch renormalisation may stand between them."""
    return [layer for layer in network.modules() if isinstance(layer, kind)]


def cases(*algorithms: type[BaseAlgorithm]) -> list[Any]:
    """Every (algorithm, scenario name) in which the algorithm's host has the feature, as pytest parameters."""
    pairs = [(a, name) for a in algorithms for name, s in SCENARIOS.items() if host_of(a) in s.hosts]
    without_n_steps = pytest.mark.skipif(not HAS_N_STEPS, reason="this SB3 has no n-step returns")
    return [
        pytest.param(a, name, id=f"{a.__name__}-{name}", marks=[without_n_steps] if name == "n_steps" else [])
        for a, name in pairs
    ]


def make(algorithm: type[BaseAlgorithm], name: str, **overrides: Any) -> BaseAlgorithm:
    """
    The scenario's model, not trained yet.

    :param algorithm: a PAVE class or a host (which does not get PAVE's arguments)
    :param name: the scenario
    :param overrides: further arguments
    """
    scenario = SCENARIOS[name]
    kwargs = {
        "learning_starts": 20,
        "buffer_size": 200,
        "batch_size": 8,
        "seed": 3,
        **scenario.kwargs,
        **overrides,
    }
    if not algorithm.__name__.startswith("PAVE"):
        kwargs = {key: value for key, value in kwargs.items() if key not in PAVE_ONLY}
        kwargs["policy_kwargs"] = {"activation_fn": nn.SiLU, **kwargs["policy_kwargs"]}
    kwargs["policy_kwargs"] = dict(kwargs["policy_kwargs"])
    # SB3's SimpleMultiObsEnv draws its images when it is made, by NumPy's global generator
    np.random.seed(0)
    return algorithm(env=scenario.env(), **kwargs)


def logged_by_calls(model, tag, *calls):
    """What the log says after each ``train()`` call of so many updates, from one state of the generators."""
    model.set_random_seed(0)
    logged = []
    for n_updates in calls:
        model.train(n_updates, 8)
        logged.append(model.logger.name_to_value[tag])
    return logged
