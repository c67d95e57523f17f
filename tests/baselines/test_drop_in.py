"""The classes stand in for their hosts: arguments, signatures, other processes, observations without anything to perturb."""

import inspect
import multiprocessing
import pickle
import pydoc
import warnings
from decimal import Decimal

import cloudpickle
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import TQC, CrossQ
from stable_baselines3 import DDPG, SAC, TD3, HerReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_pave import PAVE_SAC, PAVE_TD3, PAVE_TQC, PAVE_CrossQ, pave
from sb3_pave.algorithms.recording import records
from sb3_pave.baselines import METHODS, asap, caps, damper, grad, temporal
from tests.algorithms.environments import RandomObservationEnv
from tests.algorithms.own_algorithms import MySAC
from tests.algorithms.test_passing_on import Extended
from tests.baselines.agents import FACTORIES, WEIGHTS, small

HOSTS = (TD3, SAC, DDPG, TQC, CrossQ, PAVE_TD3, PAVE_SAC, PAVE_TQC, PAVE_CrossQ)
COUNTS = spaces.Box(0, 4096, (4,), np.int32)
methods = pytest.mark.parametrize("method", FACTORIES)


@methods
def test_the_same_class_for_the_same_host_found_again_by_pickle(method):
    factory = FACTORIES[method]
    for host in (*HOSTS, MySAC, pave(MySAC)):
        made = factory(host)
        assert made is factory(host) is factory(made) and issubclass(made, host)
        assert made.__name__ == f"{method.upper()}_{host.__name__}"
        for module in (pickle, cloudpickle):
            assert module.loads(module.dumps(made)) is made


def describe(cls):
    return cls, caps(MySAC) is cls, pave(damper(SAC)) is cls


def test_a_spawned_process_gets_them():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(describe, (caps(MySAC),)) == (caps(MySAC), True, False)
        assert pool.apply(describe, (pave(damper(SAC)),)) == (pave(damper(SAC)), False, True)


@methods
@pytest.mark.parametrize("host", HOSTS)
def test_the_signature_is_the_hosts_and_the_methods(method, host):
    made = FACTORIES[method](host)
    shown, hosts = inspect.signature(made).parameters, inspect.signature(host).parameters
    own = METHODS[method].hyperparameters
    assert {*shown} == {*hosts, *own} and all(shown[name] == hosts[name] for name in hosts)
    assert all(shown[name].kind is inspect.Parameter.KEYWORD_ONLY for name in own)
    assert all(f"{name}:" in pydoc.render_doc(made) for name in (*hosts, *own))
    assert inspect.signature(made.learn) == inspect.signature(host.learn)


@methods
def test_arguments_of_the_hosts_methods_arrive(method, tmp_path):
    made = FACTORIES[method](Extended)
    assert "demonstrations" in inspect.signature(made.learn).parameters
    model = small(made, **WEIGHTS[method])
    assert model.learn(30, demonstrations=5) is model and model.learn(1, 3).demonstrations == 3
    assert "actor.optimizer" not in model.get_parameters(with_actor=False)
    assert "tau" in model._excluded_save_params("tau")
    model._setup_model(times=2)
    assert model.set_up == 2
    model.save(tmp_path / "agent")
    assert made.load(tmp_path / "agent", "last", model.get_env()).kind == "last"


@pytest.mark.parametrize("host", [SAC, PAVE_SAC])
def test_a_misspelled_hyperparameter_is_refused_by_load(host, tmp_path):
    small(caps(host)).save(tmp_path / "agent")
    with pytest.raises(TypeError, match=r"load\(\) got spatial_coeff, .* Did you mean spatial_coef"):
        caps(host).load(tmp_path / "agent", spatial_coeff=9.0)
    assert caps(host).load(tmp_path / "agent", spatial_coef=0.3, special=1).spatial_coef == 0.3


@pytest.mark.parametrize(
    ("algorithm", "name"),
    [
        (caps(SAC), "CAPS_SAC"),
        (asap(PAVE_SAC), "ASAP_PAVE_SAC"),
        (temporal(MySAC), "TEMPORAL_MySAC"),
        (pave(grad(SAC)), "PAVE_GRAD_SAC"),
        (damper(Extended), "demo"),
    ],
)
def test_the_run_folder_has_the_hosts_own_name_else_the_class_name(algorithm, name, tmp_path):
    pytest.importorskip("tensorboard")
    model = small(algorithm, tensorboard_log=str(tmp_path))
    model.learn(5)
    model.learn(5, tb_log_name="given")
    assert {folder.name for folder in tmp_path.iterdir()} == {f"{name}_1", "given_1"}


@pytest.mark.parametrize("number", [0.25, np.float32(0.25), np.array(0.25), th.tensor(0.25), Decimal("0.25")])
def test_numbers_as_configurations_have_them_become_plain_ones(number):
    for factory, name in ((damper, "eta"), (caps, "spatial_coef"), (asap, "predictor_tau")):
        model = small(factory(TD3), **{name: number})
        assert type(getattr(model, name)) is float and getattr(model, name) == 0.25


@pytest.mark.parametrize("value", [None, True, np.bool_(True), [0.1], "0.1", lambda progress: progress, np.array([0.1])])
def test_what_is_no_number_is_refused_by_its_arguments_name(value):
    for factory, name in ((temporal, "temporal_coef"), (damper, "eta")):
        with pytest.raises(ValueError, match=f"{name} must be a number, not"):
            small(factory(SAC), **{name: value})


def vec_normalize(space, **kwargs):
    return VecNormalize(DummyVecEnv([lambda: RandomObservationEnv(space)]), **kwargs)


BLIND = [
    spaces.Discrete(5),
    spaces.MultiDiscrete([3, 4]),
    spaces.MultiBinary(4),
    COUNTS,
    spaces.Dict({"cell": spaces.Discrete(5), "bits": spaces.MultiBinary(3)}),
]


@pytest.mark.parametrize("space", BLIND, ids=str)
def test_caps_starts_where_its_host_starts_and_warns_once_where_nothing_can_be_perturbed(space):
    policy = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"
    settings = {"policy": policy, "temporal_coef": 3.0}
    with pytest.warns(UserWarning, match="CAPS's spatial term contributes nothing, as with spatial_coef=0") as warned:
        model = small(caps(SAC), RandomObservationEnv(space), **settings).learn(60)
    assert len(warned) == 1
    assert "train/spatial_loss" not in model.logger.name_to_value
    without = small(caps(SAC), RandomObservationEnv(space), spatial_coef=0, **settings).learn(60)
    parameters = zip(model.policy.parameters(), without.policy.parameters(), strict=True)
    assert all(th.equal(ours, theirs) for ours, theirs in parameters)
    assert model.logger.name_to_value["train/temporal_loss"] > 0


def test_caps_with_hindsight_over_bits(tmp_path):
    env = BitFlippingEnv(n_bits=3, continuous=True, max_steps=5)
    kwargs = {"policy": "MultiInputPolicy", "replay_buffer_class": HerReplayBuffer}
    with pytest.warns(UserWarning, match="CAPS's spatial term contributes nothing"):
        model = small(caps(SAC), env, **kwargs).learn(40)
    model.save(tmp_path / "model")
    with pytest.warns(UserWarning, match="CAPS's spatial term contributes nothing"):
        caps(SAC).load(tmp_path / "model", env=env)


def spatial_noise(model, monkeypatch):
    """Standard deviation of what CAPS adds to the observations of a batch."""
    seen = []

    def remember(actor, before, *others):
        seen.append((others[-1].float() - before.float()).std().item())
        return (before.float().mean() * actor.latent_pi[0].weight.sum(),) * (1 + len(others))

    with monkeypatch.context() as patch:
        patch.setattr("sb3_pave.baselines.methods.caps.deterministic_actions", remember)
        patch.setattr("sb3_pave.baselines.methods.caps.half_mean_squared_change", lambda actions, *_: actions)
        model.train(1, 64)
    return seen[0]


def test_integers_that_vecnormalize_normalises_get_noise_of_sigma(monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = small(caps(SAC), vec_normalize(COUNTS), spatial_sigma=0.3).learn(100)
    assert model.logger.name_to_value["train/spatial_loss"] > 0
    assert spatial_noise(model, monkeypatch) == pytest.approx(0.3, rel=0.2)
    with pytest.warns(UserWarning, match="CAPS's spatial term contributes nothing"):
        small(caps(SAC), vec_normalize(COUNTS, norm_obs=False))


def test_a_loaded_agent_takes_the_normalisation_of_its_new_environment(tmp_path):
    env = vec_normalize(COUNTS)
    small(caps(SAC), env).learn(40).save(tmp_path / "agent")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = caps(SAC).load(tmp_path / "agent")  # without one, nothing is known yet
        model.set_env(env)
        model.learn(40)
    assert model.logger.name_to_value["train/spatial_loss"] > 0
    model.set_env(vec_normalize(COUNTS, norm_obs=False))
    with pytest.warns(UserWarning, match="CAPS's spatial term contributes nothing") as warned:
        model.learn(40)
    assert len(warned) == 1 and "train/spatial_loss" not in model.logger.name_to_value


@methods
def test_cuda_graphs_are_refused(method):
    for true in (True, np.bool_(True)):
        with pytest.raises(ValueError, match=f"cuda_graph=True records updates as a whole, and {method} joins"):
            small(FACTORIES[method](PAVE_SAC), cuda_graph=true)


@methods
@pytest.mark.parametrize("host", [PAVE_SAC, PAVE_TD3, PAVE_TQC, PAVE_CrossQ])
def test_by_default_nothing_is_recorded(method, host):
    """On a CUDA device the hosts are: a recording would not repeat what joins from outside."""
    model, plain = small(FACTORIES[method](host)), small(host)
    for agent in (model, plain):
        agent.device = th.device("cuda")
    assert model.cuda_graph == "auto" and not records(model)
    assert records(plain) is (host is not PAVE_CrossQ)
