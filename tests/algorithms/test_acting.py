"""Acting between updates: SB3's actions, by a recorded policy and modes that are set at once."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.policies import BaseModel, BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.sac.policies import SACPolicy
from torch import nn

import sb3_pave.algorithms.fast_execution as fast_execution
from sb3_pave import PAVE_DDPG, PAVE_SAC, PAVE_TD3, pave
from sb3_pave.algorithms.modes import Modes
from sb3_pave.fast.static_batch import StaticBatch
from tests.fast.operations import OperationCapture
from tests.fast.stand_in import StandIn

SETTINGS = dict(learning_starts=60, batch_size=16, buffer_size=300, policy_kwargs={"net_arch": [16]}, seed=0)


def make(algorithm=PAVE_SAC, **kwargs):
    return algorithm("MlpPolicy", "Pendulum-v1", **{**SETTINGS, **kwargs})


def recordings(model):
    return [recording for recording in model._standing.acting._recordings.values() if recording.replay is not None]


@pytest.mark.parametrize("algorithm", [PAVE_SAC, PAVE_TD3, PAVE_DDPG])
def test_recorded_acting_is_the_policys(algorithm, monkeypatch):
    """A replay repeats operations and sees no Python: the actor's new parameters and noise have to reach it all the same."""
    eager = make(algorithm, cuda_graph=False).learn(120)
    monkeypatch.setattr(fast_execution, "CudaCapture", OperationCapture)
    recorded = make(algorithm, cuda_graph=True).learn(120)
    assert eager._standing.acting is None and len(recordings(recorded)) == 1
    np.testing.assert_allclose(recorded.replay_buffer.actions, eager.replay_buffer.actions, atol=1e-5)
    assert len(np.unique(recorded.replay_buffer.actions[100:120])) > 10


def test_nothing_stays_behind_on_the_policy(monkeypatch):
    monkeypatch.setattr(fast_execution, "CudaCapture", StandIn)
    seen, replaced = [], {"predict", "_predict", "obs_to_tensor", "set_training_mode"}

    class Look(BaseCallback):
        def _on_step(self):
            seen.append(replaced & vars(self.model.policy).keys())
            return True

    model = make(cuda_graph=True).learn(80, Look())
    assert recordings(model) and not any(seen) and len(seen) == 80
    assert not replaced & vars(model.policy).keys()


def exchange_the_actors_network(model):
    model.actor.latent_pi = nn.Sequential(nn.Linear(3, 16), nn.Tanh())


def exchange_the_actor(model):
    model.policy.actor = make(seed=7).actor


@pytest.mark.parametrize("change", [exchange_the_actors_network, exchange_the_actor])
def test_an_actor_that_was_changed_acts_as_it_is(change, monkeypatch):
    monkeypatch.setattr(fast_execution, "CudaCapture", OperationCapture)
    model = make(cuda_graph=True).learn(80)
    assert recordings(model)
    change(model)
    th.manual_seed(3)
    expected, _ = model.predict(model._last_obs)
    th.manual_seed(3)
    action, _ = model._sample_action(0, None, 1)
    np.testing.assert_array_equal(action, expected)


def test_methods_of_the_users_are_asked(monkeypatch):
    monkeypatch.setattr(fast_execution, "CudaCapture", StandIn)

    class Own(PAVE_SAC):
        def predict(self, *args, **kwargs):
            return np.full((1, 1), 0.5, np.float32), None

    model = make(Own, cuda_graph=True).learn(80)
    assert model._standing.acting is None and (model.replay_buffer.actions[62:80] == 0.25).all()
    model = make(cuda_graph=True).learn(80)
    model.policy._predict = lambda *_, **__: th.full((1, 1), -1.0)
    model.learn(5, reset_num_timesteps=False)
    assert model._standing.acting is None and (model.replay_buffer.actions[80:85] == -1).all()


class ShiftedObservations(SACPolicy):
    """Turns observations into tensors in its own way."""

    shift = 100.0

    def obs_to_tensor(self, observation):
        tensors, is_vectorized = super().obs_to_tensor(observation)
        return tensors + self.shift, is_vectorized


def test_a_policys_own_way_from_observations_to_tensors_is_its_own(monkeypatch):
    monkeypatch.setattr(fast_execution, "CudaCapture", StandIn)
    model, eager = (
        PAVE_SAC(ShiftedObservations, "Pendulum-v1", **SETTINGS, cuda_graph=recorded).learn(80) for recorded in (True, False)
    )
    np.testing.assert_allclose(model.replay_buffer.actions, eager.replay_buffer.actions, atol=1e-5)


def exchange_the_policy(model):
    """Until the next update nothing has looked at the agent."""
    other = make(PAVE_TD3, seed=7)
    for parameter in other.actor.parameters():
        parameter.data.zero_()
    model.policy = other.policy
    model._create_aliases()


@pytest.mark.parametrize("graph", [False, True])
def test_a_policy_that_is_exchanged_acts_at_once(graph, monkeypatch):
    monkeypatch.setattr(fast_execution, "CudaCapture", OperationCapture)
    model = make(PAVE_TD3, cuda_graph=graph, train_freq=10, gradient_steps=1).learn(110)

    class Exchange(BaseCallback):
        def _on_step(self):
            if self.n_calls == 3:
                exchange_the_policy(self.model)
            return True

    model.learn(10, Exchange(), reset_num_timesteps=False)
    assert (model.replay_buffer.actions[110:113] != 0).all() and (model.replay_buffer.actions[113:120] == 0).all()


class Snapshots(SAC):
    """Keeps copies of its policy, as self-play does."""

    def collect_rollouts(self, *args, **kwargs):
        self.snapshot = copy.deepcopy(self.policy)
        collected = super().collect_rollouts(*args, **kwargs)
        self.snapshot.predict(self._last_obs)
        return collected


class Sending(SAC):
    def predict(self, *args, **kwargs):
        pickle.loads(pickle.dumps(self.policy)).predict(self._last_obs)
        return super().predict(*args, **kwargs)


@pytest.mark.parametrize("host", [Snapshots, Sending])
def test_hosts_of_the_users_meet_the_policy_as_it_is(host, monkeypatch):
    monkeypatch.setattr(fast_execution, "CudaCapture", StandIn)
    for graph in ("auto", True):
        make(pave(host), cuda_graph=graph).learn(70)


def test_another_thread_gets_its_own_actions(monkeypatch):
    """It evaluates while this one acts; the recording's memory is that of this one's observation."""
    monkeypatch.setattr(fast_execution, "CudaCapture", OperationCapture)
    model = make(PAVE_TD3, cuda_graph=True).learn(80)
    acting, found = model._standing.acting, []
    observation = th.ones(1, 3)
    ours = acting(-observation).clone()
    kept = acting(-observation)
    thread = threading.Thread(target=lambda: found.append(acting(observation)))
    thread.start()
    thread.join()
    assert th.equal(kept, ours) and th.allclose(found[0], model.actor(observation)) and not th.equal(found[0], ours)


class AsksThePolicy(NormalActionNoise):
    """Noise of the user's, drawn while the agent acts."""

    def __call__(self):
        observation, _ = self.policy.obs_to_tensor(np.ones((1, 3), np.float32))
        self.seen.add(observation.device)
        return super().__call__()


def test_only_the_recording_gets_observations_on_the_host(monkeypatch):
    monkeypatch.setattr(fast_execution, "CudaCapture", StandIn)
    noise = AsksThePolicy(np.zeros(1), np.ones(1))
    model = make(PAVE_TD3, action_noise=noise, cuda_graph=True)
    noise.policy, noise.seen = model.policy, set()
    model.learn(80)
    assert recordings(model)
    copied = []
    monkeypatch.setattr(StaticBatch, "load", _noting(copied, lambda inputs: inputs, StaticBatch.load))
    monkeypatch.setattr(BaseModel, "device", th.device("meta"))  # where the policy's own would copy them
    noise.seen.clear()
    model._sample_action(0, noise, 1)
    assert len(copied) == 1 and noise.seen == {th.device("meta")}
    model._sample_action(1000, noise, 1)  # at random
    assert len(copied) == 1 and noise.seen == {th.device("meta")}


def test_state_dependent_noise_is_not_recorded(monkeypatch):
    monkeypatch.setattr(fast_execution, "CudaCapture", StandIn)
    assert make(cuda_graph=True, use_sde=True).learn(70)._standing.acting is None


def test_a_policy_that_cannot_be_recorded_acts_as_it_is(monkeypatch):
    class Refusing(StandIn):
        def record(self, update):
            if "act" in update.__name__:
                raise RuntimeError("not here\nmore")
            return super().record(update)

    monkeypatch.setattr(fast_execution, "CudaCapture", Refusing)
    with pytest.warns(UserWarning, match="policy can't be recorded: not here. Acting goes on") as caught:
        recorded = make(cuda_graph=True).learn(90)
    assert len(caught) == 1 and not recordings(recorded)
    np.testing.assert_array_equal(recorded.replay_buffer.actions, make(cuda_graph=False).learn(90).replay_buffer.actions)


class Counting(nn.SiLU):
    """Notes each time that its mode is set."""

    def train(self, mode=True):
        self.count = getattr(self, "count", 0) + 1
        return super().train(mode)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("algorithm", [PAVE_SAC, PAVE_TD3])
def test_modes_are_those_that_sb3_sets(algorithm, training):
    ours, theirs = make(algorithm), make(algorithm)
    Modes(ours.policy).set(training)
    theirs.policy.set_training_mode(training)
    assert [m.training for m in ours.policy.modules()] == [m.training for m in theirs.policy.modules()]


def test_modules_that_came_later_get_their_mode():
    model = make()
    modes = Modes(model.policy)
    model.actor.latent_pi[1] = nn.Dropout()
    modes.set(False)
    assert not model.actor.latent_pi[1].training
    modes.set(True)
    assert model.actor.latent_pi[1].training


def test_a_module_that_decides_for_itself_is_asked():
    model = make()
    modes = Modes(model.policy)
    layer = model.actor.latent_pi[0]
    layer.train = lambda mode=True: layer
    layer.training = True
    modes.set(False)
    assert layer.training and not model.actor.mu.training
    model = make(policy_kwargs={"net_arch": [16], "activation_fn": Counting})
    Modes(model.policy).set(False)
    assert model.actor.latent_pi[1].count > 0


class Scripted(BaseFeaturesExtractor):
    def __init__(self, observation_space):
        super().__init__(observation_space, 4)
        self.net = th.jit.script(nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)))

    def forward(self, observations):
        return self.net(observations)


@pytest.mark.filterwarnings("ignore:.*jit.script")
def test_scripted_modules_train_and_get_their_mode():
    model = make(policy_kwargs={"net_arch": [8], "features_extractor_class": Scripted}).learn(70)
    Modes(model.policy).set(False)
    observations = th.ones(50, 3)
    extract = model.actor.features_extractor
    assert th.equal(extract(observations)[0], extract(observations)[1])
    Modes(model.policy).set(True)
    assert not th.equal(extract(observations), extract(observations))


def test_acting_is_in_evaluation_mode_and_updates_are_in_training_mode(monkeypatch):
    model, seen = make().learn(70), []
    monkeypatch.setattr(
        BasePolicy, "obs_to_tensor", _noting(seen, lambda policy: policy.actor.training, BasePolicy.obs_to_tensor)
    )
    monkeypatch.setattr(
        type(model), "_gradient_step", _noting(seen, lambda agent: agent.actor.training, type(model)._gradient_step)
    )
    model.learn(4, reset_num_timesteps=False)
    assert seen == [False, True] * 4


def _noting(seen, what, method):
    def noted(self, *args, **kwargs):
        seen.append(what(self))
        return method(self, *args, **kwargs)

    return noted
