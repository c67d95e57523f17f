"""All that holds for PAVE's classes: the host's features, its zips, its checks."""

import copy
import subprocess
import sys
import textwrap
import zipfile

import numpy as np
import pytest
import torch as th
from sb3_contrib import TQC, CrossQ
from stable_baselines3 import DDPG, DQN, PPO, SAC, TD3, HerReplayBuffer
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv, IdentityEnv
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import Actor as TD3Actor
from stable_baselines3.td3.policies import TD3Policy
from torch import nn

from sb3_pave import PAVE_SAC, PAVE_TD3, PAVE_TQC, PAVE_CrossQ, pave
from sb3_pave.baselines import asap, caps, damper, grad, temporal
from tests.algorithms.own_algorithms import OWN_TRAIN, MySAC, OwnNetworks, RegressionAgent
from tests.algorithms.scenarios import HAS_N_STEPS, make
from tests.baselines.agents import FACTORIES, WEIGHTS, ZERO, ActorSteps, flat, small

HOSTS = (TD3, SAC, DDPG, TQC, CrossQ, PAVE_TD3, PAVE_SAC, PAVE_TQC, PAVE_CrossQ)
OBSERVATIONS = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
STEPS = 60
methods = pytest.mark.parametrize("method", FACTORIES)
base_hosts = pytest.mark.parametrize("host", [TD3, SAC])


def cases():
    """Each feature of the hosts with one of them and some method; ASAP, which does most, the most often."""
    chosen = {
        "mlp": [(method, host) for host in HOSTS for method in (FACTORIES if host in (TD3, SAC) else ("asap", "damper"))],
        "cnn": [("asap", TD3), ("caps", SAC)],
        "cnn_shared": [("asap", SAC), ("damper", TD3)],
        "multi_input": [("asap", TD3), ("caps", SAC), ("asap", TQC)],
        "mixed_dict": [("caps", TD3), ("asap", SAC), ("damper", PAVE_SAC)],
        "her": [("temporal", SAC), ("damper", TD3)],
        "n_steps": [("asap", SAC), ("temporal", TD3), ("grad", PAVE_TD3)],
        "memory_optimized": [("asap", TD3), ("damper", PAVE_SAC)],
        "vec_normalize": [("asap", SAC), ("caps", TD3)],
        "several_envs": [("asap", TD3), ("damper", SAC), ("grad", CrossQ)],
        "episodes": [("asap", SAC)],
        "batch_norm": [("asap", TD3), ("caps", SAC)],
        "dropout": [("asap", SAC), ("damper", TD3)],
        "separate_arch": [("asap", SAC)],
        "adamw": [("asap", TD3)],
        "schedule": [("asap", SAC)],
        "float64": [("asap", SAC), ("grad", TD3)],
        "large_batch": [("asap", TD3)],
        "policy_delay": [("asap", TD3), ("asap", CrossQ)],
        "gsde": [("asap", SAC), ("damper", SAC), ("caps", TQC), ("grad", CrossQ)],
        "after_renorm_warmup": [("asap", CrossQ), ("damper", PAVE_CrossQ)],
        "own_td3_policy": [("asap", TD3)],
        "own_sac_policy": [("asap", SAC)],
    }
    skip = [] if HAS_N_STEPS else [pytest.mark.skip(reason="this SB3 has no n-step returns")]
    return [
        pytest.param(name, method, host, id=f"{name}-{method}-{host.__name__}", marks=skip if name == "n_steps" else [])
        for name, pairs in chosen.items()
        for method, host in pairs
    ]


def made(name, method, host, weights):
    kwargs = {**weights}
    if method == "caps" and name == "her":
        kwargs["spatial_coef"] = 0  # every entry of the observation is binary, which a warning would say
    return make(FACTORIES[method](host), name, **kwargs)


def same(first, second):
    ours, theirs = first.policy.state_dict(), second.policy.state_dict()
    return ours.keys() == theirs.keys() and all(th.equal(ours[name], theirs[name]) for name in ours)


# SB3's own load() takes the buffer class that it chose for n-step returns for the user's
@pytest.mark.filterwarnings("ignore:`n_steps=3` is ignored because a custom `replay_buffer_class`:UserWarning")
@pytest.mark.parametrize(("name", "method", "host"), cases())
def test_it_trains_saves_loads_trains_on_and_with_zero_weights_is_the_host(name, method, host, tmp_path):
    model = made(name, method, host, WEIGHTS[method]).learn(STEPS)
    without = {"mpr_coef": 0} if name == "her" else {}
    plain = make(host, name, **without, policy_kwargs=model.policy_kwargs).learn(STEPS)
    assert not same(model, plain)
    assert all(np.isfinite(value) for value in model.logger.name_to_value.values() if isinstance(value, float))
    if method in ZERO:
        zero = made(name, method, host, ZERO[method]).learn(STEPS)
        assert same(zero, plain) and zero.logger.name_to_value.keys() == plain.logger.name_to_value.keys()

    model.save(tmp_path / "model.zip")
    env = model.get_env()
    loaded = type(model).load(tmp_path / "model.zip", env=env)
    assert same(loaded, model)
    loaded.learn(STEPS)
    assert loaded._n_updates > model._n_updates and not same(loaded, model)


def test_the_running_statistics_do_not_move():
    """The extra forward passes neither move them nor draw masks."""
    for name, host in (("batch_norm", SAC), ("after_renorm_warmup", CrossQ)):
        model = make(asap(host), name, **WEIGHTS["asap"]).learn(30)
        statistics = {key: value.clone() for key, value in model.actor.named_buffers()}
        assert statistics
        states = model.replay_buffer.sample(8).observations
        model.policy.set_training_mode(True)
        from sb3_pave.baselines.predictor import actions_and_latents

        actions_and_latents(model.actor, states, states)
        model._predictor.average_prediction(states)
        assert all(th.equal(statistics[key], value) for key, value in model.actor.named_buffers())
        assert model.actor.training


@methods
@base_hosts
def test_its_zip_is_the_hosts_and_loads_where_sb3_pave_cannot_be_imported(method, host, tmp_path):
    model = small(FACTORIES[method](host), **WEIGHTS[method]).learn(60)
    model.save(tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert all(b"sb3_pave" not in archive.read(name) for name in archive.namelist())
    np.save(tmp_path / "observations.npy", OBSERVATIONS)
    script = f"""
        import sys
        sys.modules["sb3_pave"] = None  # any import of it fails
        import numpy as np
        from stable_baselines3 import {host.__name__}

        model = {host.__name__}.load("model.zip")
        np.save("actions.npy", model.predict(np.load("observations.npy"), deterministic=True)[0])
        model.save("again.zip")
    """
    if method in ("asap", "damper"):  # the others have nothing but numbers in their zips
        subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(script)], cwd=tmp_path, check=True)
        np.testing.assert_array_equal(np.load(tmp_path / "actions.npy"), model.predict(OBSERVATIONS, deterministic=True)[0])
    loaded = host.load(tmp_path / "model.zip", env=model.get_env())
    assert type(loaded) is host and same(loaded, model)
    loaded.learn(30)


@base_hosts
def test_asap_continues_with_its_head_and_average(host, tmp_path):
    model = small(asap(host), **WEIGHTS["asap"]).learn(60)
    model.save(tmp_path / "model")
    loaded = asap(host).load(tmp_path / "model", env=model.get_env())
    loaded.save(tmp_path / "again")  # before it trains
    again = asap(host).load(tmp_path / "again", env=model.get_env())
    for continued in (model, loaded, again):
        continued.replay_buffer = model.replay_buffer
        continued._logger = model.logger
        continued.set_random_seed(7)
        continued.train(6, 8)
    assert same(model, loaded) and same(model, again)
    for ours in (loaded, again):
        assert all(th.equal(ours._predictor._average[name], value) for name, value in model._predictor._average.items())
        assert th.equal(ours._predictor.head.weight, model._predictor.head.weight)
    # A moving average that has not arrived
    difference = (model._predictor._average["actor.mu.0.weight" if host is TD3 else "actor.mu.weight"]).clone()
    assert not th.equal(difference, model.actor.mu[0].weight if host is TD3 else model.actor.mu.weight)


def test_asap_starts_afresh_where_its_prediction_is_of_another_actor(tmp_path):
    model = small(asap(SAC), **WEIGHTS["asap"]).learn(60)
    model.save(tmp_path / "model")
    plain = SAC.load(tmp_path / "model", env=model.get_env()).learn(30)
    plain.save(tmp_path / "trained_on")
    small(SAC).learn(60).save(tmp_path / "plain")
    for name in ("trained_on", "plain"):
        loaded = asap(SAC).load(tmp_path / name, env=model.get_env(), **WEIGHTS["asap"])
        before = {name: value.detach().clone() for name, value in loaded.actor.named_parameters()}
        loaded.predictor_tau = 0.0
        loaded.learn(21)  # one update
        average = loaded._predictor._average
        assert all(th.equal(average[f"actor.{name}"], value) for name, value in before.items())
        assert not th.equal(average["head.weight"], model._predictor._average["head.weight"])
    # In place, too, also where the agent was saved before, or has just been loaded
    for agent in (model, asap(SAC).load(tmp_path / "model", env=model.get_env())):
        agent.set_parameters(tmp_path / "plain")
        average = agent._ready_predictor()._average
        assert all(th.equal(average[f"actor.{name}"], value) for name, value in agent.actor.named_parameters())


def test_arguments_given_to_load_take_effect_and_are_checked(tmp_path):
    small(damper(TD3), eta=0.7).save(tmp_path / "model")
    assert damper(TD3).load(tmp_path / "model").eta == 0.7
    assert damper(TD3).load(tmp_path / "model", eta=0.2).eta == 0.2
    with pytest.raises(ValueError, match=r"eta must be in \[0, 1\]"):
        damper(TD3).load(tmp_path / "model", eta=1.5)
    small(caps(TD3), temporal_coef=0.3).save(tmp_path / "caps")
    with pytest.warns(UserWarning, match=r"saved by caps, .* temporal_coef=0.3\. Pass load\(\) those that grad"):
        assert grad(TD3).load(tmp_path / "caps").actor_side_method == "grad"


def test_a_users_algorithm_and_its_own_train():
    model = caps(MySAC)(OwnNetworks, "Pendulum-v1", reward_scale=0.5, learning_starts=20, batch_size=8, seed=0)
    assert model.learn(40).reward_scale == 0.5 and model.spatial_sigma == 0.2
    ours, expected = (small(asap(host), **WEIGHTS["asap"]).learn(60) for host in (OWN_TRAIN[SAC], SAC))
    assert same(ours, expected) and ours.calls == 40


def test_around_pave_around_a_users_own_train():
    """Both join; both remember the batch, with one-step successors."""
    steps = {"n_steps": 3} if HAS_N_STEPS else {}
    ours, expected = (small(damper(host), scale_free=False, **steps).learn(40) for host in (pave(OWN_TRAIN[SAC]), PAVE_SAC))
    th.testing.assert_close(flat(ours), flat(expected), rtol=0, atol=2e-4)
    assert not {"sample", "_get_samples"} & vars(ours.replay_buffer).keys()
    assert not ours.actor.optimizer._optimizer_step_pre_hooks and not ours.critic.optimizer._optimizer_step_pre_hooks
    # Or PAVE around it
    other = small(pave(damper(SAC))).learn(40)
    assert {"train/temporal_grad_norm", "train/mpr_loss"} < other.logger.name_to_value.keys()


def test_two_methods_do_not_combine():
    with pytest.raises(TypeError, match=r"SAC has an actor-side method, caps: two of them do not combine"):
        damper(caps(SAC))


@pytest.mark.parametrize("host", [PPO, DQN, nn.Module])
def test_a_class_without_an_actor_that_climbs_a_critic_is_refused(host):
    with pytest.raises(TypeError, match="has no actor that climbs"):
        caps(host)


def test_what_is_no_class_or_has_names_that_a_method_needs_is_refused():
    with pytest.raises(TypeError, match=r"caps\(\) takes a class"):
        caps("SAC")

    class Clashing(SAC):
        def _terms(self):
            """Not what the method means by it."""

    with pytest.raises(TypeError, match="Clashing defines _terms, which CAPS needs"):
        caps(Clashing)

    class SetsEta(SAC):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.eta = 0.001

    with pytest.raises(TypeError, match="SetsEta's host sets eta, which damper needs"):
        small(damper(SetsEta), eta=0.9)


def test_asap_takes_an_optimizer_that_needs_its_rate():
    class NeedsRate(th.optim.Adam):
        def __init__(self, params, lr, betas=(0.9, 0.999)):
            super().__init__(params, lr, betas)

    model = small(asap(SAC), policy_kwargs={"net_arch": [8], "optimizer_class": NeedsRate}).learn(25)
    assert type(model._predictor.optimizer) is NeedsRate


BAD = [
    (temporal, {"temporal_coef": -1}, "temporal_coef must be finite and not negative"),
    (caps, {"spatial_coef": float("nan")}, "spatial_coef must be finite"),
    (caps, {"spatial_sigma": float("inf")}, "spatial_sigma must be finite"),
    (grad, {"temporal_coef": "1e-2"}, "temporal_coef must be a number, not the text '1e-2'"),
    (asap, {"predictor_coef": -0.1}, "predictor_coef must be"),
    (asap, {"predictor_tau": 1.5}, r"predictor_tau must be in \[0, 1\]"),
    (damper, {"eta": 1.01}, r"eta must be in \[0, 1\]"),
    (damper, {"eta": -0.01}, "eta must be finite and not negative"),
]


@pytest.mark.parametrize(("factory", "kwargs", "message"), BAD)
def test_arguments_without_a_meaning_are_refused(factory, kwargs, message):
    with pytest.raises(ValueError, match=message):
        small(factory(SAC), **kwargs)
    model = small(factory(SAC)).learn(25)
    vars(model).update(kwargs)
    with pytest.raises(ValueError, match=message):
        model.learn(25)


def test_arguments_are_keyword_only():
    with pytest.raises(TypeError):
        temporal(SAC)("MlpPolicy", "Pendulum-v1", spatial_coef=0.1)


def hindsight(factory, **kwargs):
    env = BitFlippingEnv(n_bits=3, continuous=True, max_steps=5)
    return small(factory(SAC), env, policy="MultiInputPolicy", replay_buffer_class=HerReplayBuffer, **kwargs)


def test_hindsight_is_refused_where_the_state_before_is_needed():
    for factory in (grad, asap):
        with pytest.raises(ValueError, match="compares three states in a row, but HerReplayBuffer"):
            hindsight(factory)
    hindsight(caps, spatial_coef=0).learn(40)


def test_a_discrete_action_space_is_refused_by_the_host():
    with pytest.raises(AssertionError, match="Box"):
        small(damper(SAC), IdentityEnv(2))


def test_actors_that_a_method_can_not_work_with_are_refused():
    with pytest.raises(TypeError, match=r"has no self\.actor with an optimizer of its own"):
        caps(type("WithoutActor", (RegressionAgent,), {"_setup_model": without_actor}))(SACPolicy, "Pendulum-v1")

    class OwnActor(TD3Actor):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.mu = nn.Linear(3, 1)

    class OwnPolicy(TD3Policy):
        def make_actor(self, features_extractor=None):
            return OwnActor(**self._update_features_extractor(self.actor_kwargs, features_extractor)).to(self.device)

    with pytest.raises(TypeError, match="ASAP puts a second head on the actor's last hidden layer"):
        small(asap(TD3), policy=OwnPolicy)
    small(damper(TD3), policy=OwnPolicy).learn(40)


def without_actor(self):
    super(RegressionAgent, self)._setup_model()
    self.critic = self.policy.critic


def test_a_train_that_a_method_can_not_join_is_refused():
    def with_closure(self, gradient_steps, batch_size=64):
        self.replay_buffer.sample(batch_size)
        self.actor.optimizer.step(lambda: 0.0)

    def without_batch(self, gradient_steps, batch_size=64):
        self.actor.optimizer.step()

    def with_another_optimizer(self, gradient_steps, batch_size=64):
        self.replay_buffer.sample(batch_size)
        sum(parameter.sum() for parameter in self.actor.parameters()).backward()
        th.optim.SGD(self.actor.parameters(), lr=0.1).step()

    def waiting(self, gradient_steps, batch_size=64):
        pass

    for train, message in (
        (with_closure, "closure"),
        (without_batch, "without a batch"),
        (with_another_optimizer, "without stepping"),
    ):
        model = small(temporal(type("Faulty", (SAC,), {"train": train})))
        with pytest.raises(RuntimeError, match=message):
            model.learn(25)
        assert "sample" not in vars(model.replay_buffer) and not model.actor.optimizer._optimizer_step_pre_hooks
    small(temporal(type("Waiting", (SAC,), {"train": waiting}))).learn(25)


def test_a_term_that_is_not_finite_stops_the_training():
    class Broken(ReplayBuffer):
        def sample(self, batch_size, env=None):
            batch = super().sample(batch_size, env)
            return batch._replace(next_observations=batch.next_observations * float("nan"))

    for factory, message in ((temporal, "temporal's temporal_loss became nan"), (damper, "damper's temporal_loss became nan")):
        with pytest.raises(ValueError, match=message):
            small(factory(TD3), replay_buffer_class=Broken).learn(40)


def test_the_run_folder_carries_the_name_of_the_class(tmp_path):
    pytest.importorskip("tensorboard")
    model = small(caps(PAVE_SAC), tensorboard_log=str(tmp_path)).learn(30)
    model.learn(30, tb_log_name="mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["CAPS_PAVE_SAC_1", "mine_1"]


def test_the_same_seed_gives_the_same():
    for factory in (asap, caps):
        assert same(*(small(factory(TD3)).learn(60) for _ in range(2)))


def test_nothing_is_left_on_the_optimizers():
    model = small(asap(TD3)).learn(60)
    steps = ActorSteps(model)
    assert len(model.actor.optimizer._optimizer_step_pre_hooks) == 1 and not model.critic.optimizer._optimizer_step_pre_hooks
    assert steps.after == [] and not {"sample", "_get_samples"} & vars(model.replay_buffer).keys()


@methods
@pytest.mark.parametrize("host", [SAC, TD3, TQC])
def test_an_agent_can_be_copied_and_its_actor_frozen(method, host):
    model = small(FACTORIES[method](host), **WEIGHTS[method]).learn(40)
    assert same(copy.deepcopy(model), model)
    model.actor.requires_grad_(False)
    before = [parameter.clone() for parameter in model.actor.parameters()]
    model.learn(25)
    assert all(map(th.equal, before, model.actor.parameters()))


def test_a_frozen_actor_has_nothing_to_learn_from_a_prediction_that_does_not_learn():
    model = small(asap(TD3), temporal_coef=0, spatial_coef=3.0, predictor_coef=0).learn(40)
    model.actor.requires_grad_(False)
    critic = [parameter.clone() for parameter in model.critic.parameters()]
    model.learn(25)
    assert not any(map(th.equal, critic, model.critic.parameters()))


def test_asaps_head_learns_at_the_actors_rate():
    model = small(asap(TD3), learning_rate=lambda left: 0.01 * left, **WEIGHTS["asap"]).learn(60)
    actors, heads = (one.param_groups[0]["lr"] for one in (model.actor.optimizer, model._predictor.optimizer))
    assert actors == heads < 0.001


def test_asaps_average_has_the_running_statistics_of_its_actor():
    model = make(asap(SAC), "batch_norm", predictor_tau=0.01).learn(40)
    model._predictor.update_average(model.predictor_tau)
    average = model._predictor._average
    assert all(th.equal(average[f"actor.{name}"], value) for name, value in model.actor.named_buffers())
    assert not th.equal(average["actor.mu.weight"], model.actor.mu.weight)
