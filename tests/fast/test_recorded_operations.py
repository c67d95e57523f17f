"""What is recorded holds nothing that Python would have decided anew; by a recording of operations, without a GPU."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer

import sb3_pave.algorithms.fast_execution as fast_execution
from tests.cuda.agents import CASES, assert_same_training, case, make, n_recordings, parameters, train
from tests.fast.operations import OperationCapture

NAMES = (
    *("td3", "td3, every third update", "td3, part of the batch", "td3, paper's units", "sac", "sac, gSDE", "sac, schedule"),
    *("ddpg", "tqc, every second update", "crossq"),
)


@pytest.fixture(autouse=True)
def recording_operations(monkeypatch):
    monkeypatch.setattr(fast_execution, "CudaCapture", OperationCapture)


@pytest.mark.parametrize("name", [case(name) for name in NAMES])
def test_replayed_operations_are_the_update(name):
    algorithm, kwargs = CASES[name]
    recorded, eager = (train(make(algorithm, device="cpu", cuda_graph=graph, **kwargs)) for graph in (True, False))
    assert n_recordings(recorded) > 0
    assert_same_training(name, recorded, eager)


def trained_with_change(change, graph):
    """Sixty updates before the change and thirty after it."""
    model = train(make("PAVE_TD3", device="cpu", cuda_graph=graph))
    change(model)
    return train(model, calls=6)


def clip_gradients(model):
    step, groups = model.critic.optimizer.step, model.critic.optimizer.param_groups

    def clipped(*args, **kwargs):
        th.nn.utils.clip_grad_norm_(groups[0]["params"], 1e-3)
        return step(*args, **kwargs)

    model.critic.optimizer.step = clipped


def raise_tau(model):
    """In two steps: the first changes the kind of number, the second the number alone."""
    model.tau = np.float32(0.01)
    train(model)
    model.tau = np.float32(0.5)


@pytest.mark.parametrize("change", [clip_gradients, raise_tau])
def test_a_change_between_updates_is_recorded_anew(change):
    recorded, eager = (trained_with_change(change, graph) for graph in (True, False))
    assert n_recordings(recorded) > 0
    assert (parameters(recorded) - parameters(eager)).abs().max() < 5e-6


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_and_pickles_record_anew(copied):
    model = train(make("PAVE_TD3", device="cpu", cuda_graph=True))
    twin = copied(model)
    assert n_recordings(twin) == 0 < n_recordings(model)
    for one in (twin, model):
        train(one)
    assert n_recordings(twin) > 0
    assert (parameters(twin) - parameters(model)).abs().max() < 5e-6


class OnDevice(ReplayBuffer):
    """Keeps its data where it says that it samples."""

    asked = ()

    def _get_samples(self, *args, **kwargs):
        self.asked = {*self.asked, (self.device, "to_torch" in vars(self))}
        return super()._get_samples(*args, **kwargs)


def test_a_buffer_of_the_users_is_sampled_as_it_is():
    model = make("PAVE_TD3", device="cpu", cuda_graph=True, replay_buffer_class=OnDevice)
    model.replay_buffer.device = "a device"  # where SB3's own would be told another one
    model.replay_buffer.to_torch = lambda array, copy=True: th.tensor(array)
    train(model)
    assert n_recordings(model) > 0 and model.replay_buffer.asked == {("a device", True)}


def test_saving_costs_no_recording(tmp_path):
    model = train(make("PAVE_TD3", device="cpu", cuda_graph=True))
    before = list(model._graphs._recordings.values())
    model.save(tmp_path / "model")
    train(model, calls=1)
    assert list(model._graphs._recordings.values()) == before


def test_steps_before_a_recording_are_quiet():
    """A copied optimizer says that it steps without being recorded, which is meant here."""
    model = make("PAVE_SAC", device="cpu", cuda_graph=True)
    step = model._gradient_step

    def saying_so(*args, **kwargs):
        warnings.warn("This instance was constructed with capturable=True or ..., but step() is running without", stacklevel=2)
        step(*args, **kwargs)

    model._gradient_step = saying_so
    model.train(4, 16)
    assert n_recordings(model) == 1
