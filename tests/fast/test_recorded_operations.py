"""What is recorded holds nothing that Python would have decided anew; by a recording of operations, without a GPU."""

import copy
import importlib.util
import pickle

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer

import sb3_pave.algorithms.fast_execution as fast_execution
from tests.cuda.agents import make, n_recordings, parameters, train
from tests.fast.operations import OperationCapture

contrib = pytest.mark.skipif(importlib.util.find_spec("sb3_contrib") is None, reason="needs sb3-contrib")
CASES = {
    "td3": ("PAVE_TD3", {}),
    "td3, every third update": ("PAVE_TD3", {"pave_interval": 3}),
    "td3, part of the batch": ("PAVE_TD3", {"pave_batch_size": 16}),
    "td3, paper's units": ("PAVE_TD3", {"scale_free": False}),
    "sac": ("PAVE_SAC", {}),
    "sac, gSDE": ("PAVE_SAC", {"use_sde": True}),
    "sac, schedule": ("PAVE_SAC", {"learning_rate": lambda progress: 1e-3 * progress}),
    "ddpg": ("PAVE_DDPG", {}),
    "tqc, every second update": ("PAVE_TQC", {"pave_interval": 2}),
    "crossq": ("PAVE_CrossQ", {"policy_kwargs": {"batch_norm": False}}),
}


@pytest.fixture(autouse=True)
def recording_operations(monkeypatch):
    monkeypatch.setattr(fast_execution, "CudaCapture", OperationCapture)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[contrib] if name.startswith(("tqc", "crossq")) else []) for name in CASES]
)
def test_replayed_operations_are_the_update(name):
    algorithm, kwargs = CASES[name]
    recorded, eager = (train(make(algorithm, device="cpu", cuda_graph=graph, **kwargs)) for graph in (True, False))
    assert n_recordings(recorded) > 0
    assert (parameters(recorded) - parameters(eager)).abs().max() < 5e-6
    for tag, value in eager.logger.name_to_value.items():
        if tag.startswith("train/"):
            assert recorded.logger.name_to_value[tag] == pytest.approx(value, rel=1e-3, abs=1e-4), tag


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
