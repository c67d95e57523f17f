"""``pave``: a user's own algorithm becomes a PAVE agent, whoever wrote its ``train()``."""

import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch as th
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.envs import IdentityEnv
from stable_baselines3.sac.policies import SACPolicy
from torch import nn

from sb3_pave import PAVE_SAC, pave
from sb3_pave.algorithms.own_train import PaveOwnTrain
from tests.algorithms.environments import CountingEnv
from tests.algorithms.own_algorithms import (
    OWN_TRAIN,
    MySAC,
    OwnBuffer,
    OwnNetworks,
    RegressionAgent,
    RobustSAC,
    ScaledCritic,
)
from tests.algorithms.scenarios import ALGORITHMS, HAS_N_STEPS, NormalizedExtractor, host_of

OBSERVATIONS = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
SMALL = {"learning_starts": 20, "buffer_size": 200, "batch_size": 8, "seed": 0}
# Large enough to matter within a few updates; δ so that the hinge is active
# In the paper's units: the range of returns, of which a train() of the user's does not know the targets, differs
WEIGHTS = {"scale_free": False, "mpr_coef": 5.0, "vfc_coef": 5.0, "curv_coef": 0.5, "curv_delta": 5.0}
ZERO = {"mpr_coef": 0, "vfc_coef": 0, "curv_coef": 0}


def small(algorithm, env="Pendulum-v1", **kwargs):
    return algorithm("MlpPolicy", env, **{"policy_kwargs": {"net_arch": [16], "activation_fn": nn.SiLU}, **SMALL, **kwargs})


def small_own_sac(algorithm, **kwargs):
    return algorithm(OwnNetworks, "Pendulum-v1", reward_scale=0.5, **SMALL, **kwargs)


def difference(first, second):
    ours, theirs = first.policy.state_dict(), second.policy.state_dict()
    assert ours.keys() == theirs.keys()
    return max((ours[name].double() - theirs[name].double()).abs().max().item() for name in ours)


def test_a_subclass_with_own_networks_buffer_and_argument():
    model = small_own_sac(pave(MySAC), mpr_coef=0.3).learn(40)
    assert isinstance(model, PAVE_SAC) and isinstance(model, MySAC)
    assert isinstance(model.critic, ScaledCritic) and isinstance(model.critic.q_networks[0][1], nn.Tanh)
    assert type(model.replay_buffer) is OwnBuffer and model.replay_buffer.batches == model._n_updates == 20
    assert model.reward_scale == 0.5 and model.mpr_coef == 0.3
    logged = model.logger.name_to_value
    assert logged["train/mpr_loss"] > 0 and logged["train/vfc_loss"] > 0

    assert difference(small_own_sac(pave(MySAC), **ZERO).learn(40), small_own_sac(MySAC).learn(40)) == 0
    assert difference(model, small_own_sac(MySAC).learn(40)) > 0


def test_the_same_class_for_the_same_host():
    assert pave(MySAC) is pave(MySAC)
    assert pave(MySAC).__name__ == "PAVE_MySAC"
    assert pave(pave(MySAC)) is pave(MySAC)
    for algorithm in ALGORITHMS:
        assert pave(host_of(algorithm)) is algorithm


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_around_a_train_that_does_what_the_hosts_does_it_learns_what_the_pave_class_learns(algorithm):
    host = OWN_TRAIN[host_of(algorithm)]
    assert not issubclass(pave(host), algorithm)
    ours, expected = (small(a, **WEIGHTS).learn(30) for a in (pave(host), algorithm))
    assert ours.calls == ours._n_updates == expected._n_updates == 10
    # Rounding apart: one sums the gradients, the other the losses
    assert difference(ours, expected) < 2e-5 < 1e-4 < difference(ours, small(host).learn(30))
    for tag in ("mpr_loss", "vfc_loss", "curv_loss", "action_grad_rms"):
        assert ours.logger.name_to_value[f"train/{tag}"] == pytest.approx(
            expected.logger.name_to_value[f"train/{tag}"], rel=1e-3
        )


@pytest.mark.skipif(not HAS_N_STEPS, reason="this SB3 has no n-step returns")
def test_around_a_train_of_the_users_vfc_takes_one_step_successors():
    # With four-step episodes and three-step returns, s_{t+1} and s_{t+n} differ nearly always
    ours, expected = (small(a, CountingEnv(), n_steps=3, **WEIGHTS).learn(30) for a in (pave(OWN_TRAIN[SAC]), PAVE_SAC))
    assert difference(ours, expected) < 2e-5


@pytest.mark.parametrize("host", [*OWN_TRAIN.values(), RobustSAC])
def test_zero_weights_equal_a_host_with_its_own_train_bit_for_bit(host):
    assert difference(small(pave(host), **ZERO).learn(40), small(host).learn(40)) == 0


def test_a_train_written_by_hand():
    # Its assertion: the actor gets no gradient from PAVE
    model = small(pave(RobustSAC), **WEIGHTS).learn(40)
    assert model._n_updates == 20
    logged = model.logger.name_to_value
    assert {"train/mpr_loss", "train/vfc_loss", "train/curv_loss", "train/concave_share"} < logged.keys()
    assert difference(model, small(RobustSAC).learn(40)) > 1e-4


def test_an_algorithm_of_ones_own():
    model = pave(RegressionAgent)(SACPolicy, "Pendulum-v1", **SMALL, **WEIGHTS).learn(40)
    assert isinstance(model, PaveOwnTrain) and isinstance(model.critic.q_networks[0][1], nn.SiLU)
    assert np.isfinite(model.logger.name_to_value["train/mpr_loss"])


def test_what_the_terms_do_not_depend_on_gets_no_gradient():
    class SharedOptimizer(SAC):
        """The critic's optimizer moves a parameter outside the critic."""

        def _setup_model(self):
            super()._setup_model()
            self.outsider = nn.Parameter(th.ones(1))
            self.critic.optimizer.add_param_group({"params": [self.outsider]})

        def train(self, *args, **kwargs):
            super().train(*args, **kwargs)

    model = small(pave(SharedOptimizer), **WEIGHTS).learn(40)
    assert model.outsider.grad is None and model.outsider.item() == 1
    assert model.logger.name_to_value["train/mpr_loss"] > 0


HOSTS = {"sb3's train()": MySAC, "own train()": RobustSAC}


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_zips_load_in_the_host_and_back(host, tmp_path):
    make = small_own_sac if host is MySAC else small
    model = make(pave(host)).learn(40)
    model.save(tmp_path / "pave.zip")
    with zipfile.ZipFile(tmp_path / "pave.zip") as archive:
        for name in archive.namelist():
            assert b"sb3_pave" not in archive.read(name) and b"PAVE" not in archive.read(name)
    expected, _ = model.predict(OBSERVATIONS, deterministic=True)

    np.save(tmp_path / "observations.npy", OBSERVATIONS)
    script = f"""
        import sys
        sys.modules["sb3_pave"] = None  # any import of it fails
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        import numpy as np
        from tests.algorithms.own_algorithms import {host.__name__}

        model = {host.__name__}.load("pave.zip")
        assert type(model) is {host.__name__}
        np.save("actions.npy", model.predict(np.load("observations.npy"), deterministic=True)[0])
    """
    subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(script)], cwd=tmp_path, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "actions.npy"), expected)

    plain = make(host).learn(40)
    plain.save(tmp_path / "plain.zip")
    continued = pave(host).load(tmp_path / "plain.zip", env=plain.get_env(), mpr_coef=0.3)
    assert type(continued) is pave(host) and difference(continued, plain) == 0
    continued.learn(40)
    assert continued.mpr_coef == 0.3 and continued.logger.name_to_value["train/mpr_loss"] > 0


def own_train(train):
    return pave(type("Faulty", (SAC,), {"train": train}))


def test_a_train_that_pave_can_not_join_is_refused():
    def without_batch(self, gradient_steps, batch_size=64):
        self.critic.optimizer.step()

    def with_another_optimizer(self, gradient_steps, batch_size=64):
        self.replay_buffer.sample(batch_size)
        th.optim.SGD(self.critic.parameters(), lr=0.1).step()

    def with_another_optimizer_and_no_batch(self, gradient_steps, batch_size=64):
        sum(parameter.sum() for parameter in self.critic.parameters()).backward()
        th.optim.SGD(self.critic.parameters(), lr=0.1).step()

    def with_closure(self, gradient_steps, batch_size=64):
        self.replay_buffer.sample(batch_size)
        self.critic.optimizer.step(lambda: 0.0)

    def with_closure_by_name(self, gradient_steps, batch_size=64):
        self.replay_buffer.sample(batch_size)
        self.critic.optimizer.step(closure=lambda: 0.0)

    for train, message in (
        (without_batch, "without a batch"),
        (with_another_optimizer, "never stepped"),
        (with_another_optimizer_and_no_batch, "never stepped"),
        (with_closure, "closure"),
        (with_closure_by_name, "closure"),
    ):
        model = small(own_train(train))
        with pytest.raises(RuntimeError, match=message):
            model.learn(40)
        # Nothing of PAVE stays behind
        assert "sample" not in vars(model.replay_buffer) and not model.critic.optimizer._optimizer_step_pre_hooks
        small(own_train(train), **ZERO).learn(25)


def test_a_train_that_waits_is_left_alone():
    def wait(self, gradient_steps, batch_size=64):
        pass

    small(own_train(wait)).learn(40)


@pytest.mark.parametrize("host", [PPO, A2C, DQN, nn.Module])
def test_a_class_without_critics_of_state_and_action_is_refused(host):
    with pytest.raises(TypeError, match="no actor that climbs"):
        pave(host)


def test_what_is_no_class_is_refused():
    with pytest.raises(TypeError, match="takes a class"):
        pave(small(SAC))
    with pytest.raises(TypeError, match="takes a class"):
        pave("SAC")


def test_a_discrete_action_space_is_refused():
    with pytest.raises(ValueError, match="Box action space"):
        pave(RobustSAC)("MlpPolicy", IdentityEnv(2))


def test_a_critic_without_an_optimizer_of_its_own_is_refused():
    class OneOptimizer(RegressionAgent):
        def _setup_model(self):
            super()._setup_model()
            self.critic = nn.Linear(4, 1)

    with pytest.raises(TypeError, match=r"self\.critic\.optimizer"):
        pave(OneOptimizer)(SACPolicy, "Pendulum-v1", **SMALL)


def test_a_host_whose_methods_pave_would_hide_is_refused():
    class Clashing(SAC):
        def _field_inputs(self):
            """Not what PAVE means by it."""

    with pytest.raises(TypeError, match=r"Clashing defines _field_inputs, which PAVE needs"):
        pave(Clashing)


def test_a_host_with_a_method_of_an_arguments_name_is_refused():
    class Compiling(SAC):
        def compile(self):
            """Compile the policy."""

    with pytest.raises(TypeError, match=r"Compiling defines compile, which PAVE needs"):
        pave(Compiling)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("return_scale", 0.0),
        ("observation_spread", 1.0),
        ("_scales", 1.0),
        ("_diagnostics", None),
        ("compile", "reduce-overhead"),
        ("mpr_coef", 7.0),
    ],
)
def test_a_host_whose_constructor_sets_what_pave_needs_is_refused(name, value):
    class Clashing(SAC):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            setattr(self, name, value)

    with pytest.raises(TypeError, match=f"Clashing's host sets {name}, which PAVE needs"):
        small(pave(Clashing))


def test_around_a_train_of_the_users_own_running_statistics_move_as_without_pave():
    statistics = []
    policy_kwargs = {"net_arch": [8], "features_extractor_class": NormalizedExtractor, "activation_fn": nn.SiLU}
    settings = {"policy_kwargs": policy_kwargs, "learning_starts": 20, "batch_size": 8, "seed": 0}
    for algorithm in (OWN_TRAIN[SAC], pave(OWN_TRAIN[SAC])):
        model = algorithm("MlpPolicy", "Pendulum-v1", **settings).learn(21)
        norms = [one for one in model.critic.modules() if isinstance(one, nn.BatchNorm1d)]
        statistics.append([norm.num_batches_tracked.item() for norm in norms])
    assert statistics[0] == statistics[1] and statistics[0]
