"""Functions of tensors stand in for SB3's MLP networks: the same numbers, and only where they are the same."""

import gymnasium as gym
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.envs import SimpleMultiObsEnv
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor
from stable_baselines3.sac import policies as sac
from stable_baselines3.td3 import policies as td3
from torch import nn

from sb3_pave import PAVE_DDPG, PAVE_SAC, PAVE_TD3, PAVE_TQC
from sb3_pave.algorithms import fast_execution
from sb3_pave.fast.stand_ins import is_mlp_actor, is_mlp_critic, mlp_actor, mlp_critic
from sb3_pave.method.field import gradient_field
from tests.algorithms.scenarios import DroppingExtractor, NormalizedExtractor
from tests.method.closed_form import closed_form_field

SETTINGS = dict(learning_starts=60, batch_size=32, buffer_size=200, seed=0)
every = pytest.mark.parametrize("algorithm", [PAVE_TD3, PAVE_SAC, PAVE_DDPG, PAVE_TQC])


def make(algorithm, policy="MlpPolicy", env="Pendulum-v1", **kwargs):
    policy_kwargs = {"net_arch": [16, 12], **kwargs.pop("policy_kwargs", {})}
    return algorithm(policy, env, policy_kwargs=policy_kwargs, **{**SETTINGS, **kwargs})


@every
@pytest.mark.parametrize("net_arch", [[16, 12], [16], []])
def test_critics_are_their_modules(algorithm, net_arch):
    model = make(algorithm, policy_kwargs={"net_arch": net_arch, "n_critics": 3})
    observations, actions = th.randn(7, 3), th.rand(7, 1)
    for critic in (model.critic, model.critic_target):
        assert is_mlp_critic(critic)
        ours = mlp_critic(critic, algorithm._critic_output)(observations, actions)
        for value, own in zip(ours, critic(observations, actions), strict=True):
            th.testing.assert_close(value, own)


@pytest.mark.parametrize("net_arch", [[16, 12], [16], []])
def test_a_deterministic_actor_is_its_module(net_arch):
    actor = make(PAVE_TD3, policy_kwargs={"net_arch": net_arch, "activation_fn": nn.GELU}).actor
    assert is_mlp_actor(actor)
    observations = th.randn(7, 3)
    th.testing.assert_close(mlp_actor(actor)(observations), actor(observations))


@every
def test_another_default_dtype_changes_nothing_for_an_agent_that_is_there(algorithm):
    model = make(algorithm).learn(62)
    th.set_default_dtype(th.float64)
    try:
        model.learn(3, reset_num_timesteps=False)
    finally:
        th.set_default_dtype(th.float32)
    assert next(model.actor.parameters()).dtype == th.float32


def test_limits_of_the_deviation_that_are_changed_hold(monkeypatch):
    actor = make(PAVE_SAC).actor
    monkeypatch.setattr(sac, "LOG_STD_MAX", -5)
    observations, noise = th.randn(5, 3), th.ones(5, 1)
    mean = th.atanh(actor(observations, deterministic=True))
    th.testing.assert_close(
        th.atanh(mlp_actor(actor)(observations, noise)[0]) - mean, th.full((5, 1), -5.0).exp(), rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("algorithm", [PAVE_SAC, PAVE_TQC])
@pytest.mark.parametrize("scale", [1.0, 30.0])  # the larger one reaches the limits of the deviation
def test_a_gaussian_actor_draws_and_rates_as_its_module_does(algorithm, scale):
    actor = make(algorithm).actor
    assert is_mlp_actor(actor)
    observations = scale * th.randn(50, 3)
    th.manual_seed(1)
    expected = actor.action_log_prob(observations)
    th.manual_seed(1)
    ours = mlp_actor(actor)(observations, th.randn(50, 1))
    for value, own in zip(ours, expected, strict=True):
        th.testing.assert_close(value, own, rtol=1e-5, atol=1e-5)
    gradients = [th.autograd.grad(part.sum(), list(actor.parameters()), retain_graph=True) for part in (ours[1], expected[1])]
    for value, own in zip(*gradients, strict=True):
        th.testing.assert_close(value, own, rtol=1e-3, atol=1e-3 * scale)


@every
def test_fifty_updates_are_those_of_the_modules(algorithm, monkeypatch):
    def parameters(has_stand_ins):
        monkeypatch.setattr(fast_execution, "is_mlp_actor", lambda actor: has_stand_ins and is_mlp_actor(actor))
        model = make(algorithm).learn(60)
        model.train(50, batch_size=32)
        assert isinstance(fast_execution.choose_execution(model), fast_execution.StandIns) is has_stand_ins
        return th.cat([parameter.detach().flatten() for parameter in model.policy.parameters()])

    th.testing.assert_close(parameters(True), parameters(False), rtol=0, atol=1e-5)


@every
def test_vectors_in_a_dict_have_stand_ins_and_images_do_not(algorithm):
    class Vectors(SimpleMultiObsEnv):
        def __init__(self):
            super().__init__(discrete_actions=False)
            self.observation_space.spaces.pop("img")

        def get_state_mapping(self):
            return {"vec": super().get_state_mapping()["vec"]}

    with_images = make(algorithm, "MultiInputPolicy", SimpleMultiObsEnv(discrete_actions=False))
    assert not is_mlp_actor(with_images.actor) and not is_mlp_critic(with_images.critic)
    without = make(algorithm, "MultiInputPolicy", Vectors())
    assert is_mlp_actor(without.actor) and is_mlp_critic(without.critic)


@every
@pytest.mark.parametrize(
    "policy_kwargs",
    [
        {"activation_fn": nn.Softsign},
        {"features_extractor_class": NormalizedExtractor},
        {"features_extractor_class": DroppingExtractor},
    ],
    ids=["activation", "statistics", "parameters"],
)
def test_other_networks_have_none(algorithm, policy_kwargs):
    model = make(algorithm, policy_kwargs=policy_kwargs)
    assert not is_mlp_actor(model.actor) and not is_mlp_critic(model.critic)


def test_state_dependent_noise_has_none():
    assert not is_mlp_actor(make(PAVE_SAC, use_sde=True).actor)


@every
@pytest.mark.parametrize("part", ["actor", "critic", "critic_target"])
def test_a_hook_runs_as_without_pave(algorithm, part):
    model = make(algorithm).learn(60)
    calls = []
    getattr(model, part).register_forward_hook(lambda *_: calls.append(part))
    model.train(2, batch_size=32)
    assert not isinstance(fast_execution.choose_execution(model), fast_execution.StandIns)
    # SAC does not call its actor in training, but a method of it
    assert calls or (part == "actor" and hasattr(model.actor, "action_log_prob"))


@every
def test_a_compiled_actor_is_called(algorithm):
    model = make(algorithm)
    model.actor._compiled_call_impl = lambda *_: None
    assert not is_mlp_actor(model.actor)


def test_an_actor_with_a_forward_of_its_own_has_none():
    actor = make(PAVE_TD3).actor
    actor.__class__ = type("Own", (type(actor),), {"forward": lambda self, obs: -self.mu(obs)})
    assert not is_mlp_actor(actor)
    actor = make(PAVE_SAC).actor
    base = type(actor)
    own = {"get_action_dist_params": lambda self, obs: base.get_action_dist_params(self, 2 * obs)}
    actor.__class__ = type("Own", (base,), own)
    assert not is_mlp_actor(actor)


@pytest.mark.parametrize("algorithm", [PAVE_TD3, PAVE_SAC])
def test_an_actor_without_biases_has_none(algorithm):
    actor = make(algorithm).actor
    layer = (actor.mu if algorithm is PAVE_TD3 else actor.latent_pi)[0]
    layer.register_parameter("bias", None)
    assert not is_mlp_actor(actor)


class Halved(nn.Sequential):
    def forward(self, inputs):
        return 0.5 * super().forward(inputs)


class Wrapped(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs):
        return self.network(inputs)


def compiled(network):
    return th.compile(network, backend="eager")


@pytest.mark.parametrize("own", [lambda network: Halved(*network), Wrapped, compiled], ids=["layers", "module", "compiled"])
@pytest.mark.parametrize("algorithm", [PAVE_TD3, PAVE_SAC])
def test_an_actor_with_a_network_of_its_own_has_none(algorithm, own):
    model = make(algorithm)
    name = "mu" if algorithm is PAVE_TD3 else "latent_pi"
    setattr(model.actor, name, own(getattr(model.actor, name)))
    assert not is_mlp_actor(model.actor)
    model.learn(62)
    assert not is_mlp_actor(Wrapped(model.actor))


def test_a_method_of_the_instance_has_none():
    model = make(PAVE_TD3)
    for network, method in ((model.critic, "forward"), (model.critic_target, "q1_forward"), (model.actor, "extract_features")):
        setattr(network, method, getattr(network, method))
    assert not is_mlp_critic(model.critic) and not is_mlp_critic(model.critic_target) and not is_mlp_actor(model.actor)


def test_a_critic_whose_actor_climbs_something_else_has_none():
    critic = make(PAVE_TD3).critic
    critic.__class__ = type("Own", (type(critic),), {"q1_forward": lambda self, *inputs: th.stack(self(*inputs)).mean(dim=0)})
    assert not is_mlp_critic(critic)


class Halves(gym.Env):
    """What the actor is to repeat, and something else of the same size."""

    observation_space = spaces.Dict(seen=spaces.Box(-1, 1, (2,)), state=spaces.Box(-1, 1, (2,)))
    action_space = spaces.Box(-1, 1, (2,))

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


class Asymmetric:
    """The actor sees one half, the critics the other."""

    def half(self, key):
        return CombinedExtractor(spaces.Dict({key: self.observation_space[key]}))

    def make_actor(self, features_extractor=None):
        return super().make_actor(self.half("seen"))

    def make_critic(self, features_extractor=None):
        return super().make_critic(self.half("state"))


@pytest.mark.parametrize(("algorithm", "policy"), [(PAVE_TD3, td3.MultiInputPolicy), (PAVE_SAC, sac.MultiInputPolicy)])
def test_where_actor_and_critic_see_different_things_each_keeps_its_features(algorithm, policy):
    model = make(algorithm, type("Policy", (Asymmetric, policy), {}), Halves()).learn(70)
    assert is_mlp_actor(model.actor) and is_mlp_critic(model.critic)
    assert not isinstance(fast_execution.choose_execution(model), fast_execution.StandIns)
    symmetric = make(algorithm, "MultiInputPolicy", Halves())
    assert isinstance(fast_execution.choose_execution(symmetric), fast_execution.StandIns)


class InDouble(FlattenExtractor):
    def forward(self, observations):
        return super().forward(observations).double()


@every
def test_networks_may_have_more_digits_than_the_replayed_actions(algorithm):
    model = make(algorithm, policy_kwargs={"features_extractor_class": InDouble})
    model.policy.double()
    model.learn(62)
    inputs = model._field_inputs(*model._sample(16))
    for ours, own in zip(closed_form_field(model.critic, inputs), gradient_field(model.critic, inputs), strict=True):
        th.testing.assert_close(ours, own.double(), rtol=1e-6, atol=1e-9)


def test_layers_that_depend_on_the_mode_within_an_extractor_of_sb3s_are_seen():
    class Normalizing(sac.MultiInputPolicy):
        def make_features_extractor(self):
            extractor = super().make_features_extractor()
            extractor.extractors["seen"] = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(2))
            return extractor

    model, passes = make(PAVE_SAC, Normalizing, Halves()).learn(60), []
    norm = model.critic.features_extractor.extractors["seen"][1]
    norm.register_forward_hook(lambda _, inputs, outputs: passes.append((len(inputs[0]), norm.training)))
    model.train(1, batch_size=32)
    # The statistics move by the batch, never by displaced states
    assert {rows for rows, training in passes if training} == {32} and (96, False) in passes
