"""Which agents ``cuda_graph="auto"`` records, and when the log of updates that the device is still at is written."""

import io
import math
import threading
import warnings

import pytest
import torch as th
from stable_baselines3.common.logger import KVWriter
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.torch_layers import FlattenExtractor

from sb3_pave import PAVE_SAC, PAVE_TD3, PAVE_CrossQ
from sb3_pave.algorithms.own_train import PaveOwnTrain
from sb3_pave.algorithms.recording import records
from sb3_pave.fast.update_log import UpdateLog

SETTINGS = dict(learning_starts=60, batch_size=16, buffer_size=200, seed=0)


class Own(FlattenExtractor):
    """Python of the user's."""


class OwnAgent(PAVE_TD3):
    """Likewise."""


def make(algorithm=PAVE_TD3, policy_kwargs=None, **kwargs):
    policy_kwargs = {"net_arch": [8], **(policy_kwargs or {})}
    return algorithm("MlpPolicy", "Pendulum-v1", policy_kwargs=policy_kwargs, **SETTINGS, **kwargs)


def on_cuda(model):
    model.device = th.device("cuda", 0)
    return model


def test_auto_records_in_the_main_thread_alone():
    """While one thread records, what another one draws or allocates raises."""
    found = []
    thread = threading.Thread(target=lambda: found.append(records(on_cuda(make()))))
    thread.start()
    thread.join()
    assert found == [False]


@pytest.mark.parametrize("algorithm", [PAVE_TD3, PAVE_SAC])
def test_auto_records_what_is_known_on_a_cuda_device(algorithm):
    model = make(algorithm)
    assert model.cuda_graph == "auto" and not records(model)
    assert records(on_cuda(model))


def test_auto_leaves_batch_renormalisation_whose_warm_up_ends():
    assert not records(on_cuda(make(PAVE_CrossQ)))
    assert records(on_cuda(make(PAVE_CrossQ, policy_kwargs={"batch_norm": False})))


@pytest.mark.parametrize("optimizer", [th.optim.AdamW, th.optim.RMSprop])
def test_auto_records_optimizers_that_can_be(optimizer):
    assert records(on_cuda(make(policy_kwargs={"optimizer_class": optimizer})))


@pytest.mark.parametrize("policy_kwargs", [{"features_extractor_class": Own}, {"optimizer_class": th.optim.SGD}])
def test_auto_leaves_what_it_does_not_know(policy_kwargs):
    assert not records(on_cuda(make(policy_kwargs=policy_kwargs)))


def test_auto_leaves_agents_with_methods_of_their_own():
    assert not records(on_cuda(make(OwnAgent)))
    assert not records(on_cuda(make(type("Renamed", (PAVE_TD3,), {"__module__": "mine"}))))


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.critic.qf0[0].register_forward_hook(lambda *_: None),
        lambda model: model.actor.register_forward_pre_hook(lambda *_: None),
        lambda model: model.actor.mu[0].weight.register_hook(lambda gradient: gradient),
        lambda model: model.actor.mu[0].weight.register_post_accumulate_grad_hook(lambda parameter: None),
        lambda model: model.critic.optimizer.register_step_pre_hook(lambda *_: None),
        lambda model: setattr(model.critic.optimizer, "step", model.critic.optimizer.step),
        lambda model: setattr(model.actor, "forward", model.actor.forward),
        lambda model: setattr(model, "_sample", model._sample),
        lambda model: setattr(model, "helper", Own(model.observation_space)),
    ],
)
def test_auto_leaves_what_was_hooked(change):
    model = on_cuda(make())
    change(model)
    assert not records(model)


def test_auto_leaves_a_train_of_the_users():
    model = on_cuda(make())
    model.__class__ = type("OwnTrain", (PaveOwnTrain, PAVE_TD3), {"__module__": "sb3_pave"})
    assert not records(model)


def test_true_and_false_are_obeyed():
    assert records(on_cuda(make(cuda_graph=True, policy_kwargs={"features_extractor_class": Own})))
    assert not records(on_cuda(make(cuda_graph=False)))


def test_auto_says_nothing_where_nothing_can_be_recorded():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make().learn(62)


@pytest.fixture
def deferred(monkeypatch):
    """Logs are always on their way, as they are from a device."""
    monkeypatch.setattr(UpdateLog, "is_on_its_way", property(lambda log: True))


def test_a_deferred_log_is_there_for_whoever_asks_the_agent(deferred):
    model = make().learn(60)
    model.train(2, 16)
    assert model._pending_log is not None and "train/critic_loss" not in model._logger.name_to_value
    assert math.isfinite(model.logger.name_to_value["train/critic_loss"])
    assert model._pending_log is None


def test_each_call_writes_the_log_of_the_one_before(deferred, monkeypatch):
    model, written = make().learn(60), []
    own = model._write_log
    monkeypatch.setattr(model, "_write_log", lambda log, n_updates: (written.append(n_updates), own(log, n_updates)))
    before = model._n_updates
    model.train(2, 16)
    assert written == []
    model.train(3, 16)
    assert written == [before + 2]
    assert model.logger.name_to_value["train/n_updates"] == before + 5 and written == [before + 2, before + 5]


def test_dumped_logs_have_the_last_call(deferred):
    model = make().learn(60)
    model.train(2, 16)
    seen = {}

    class Format(KVWriter):
        def write(self, key_values, *_):
            seen.update(key_values)

    model._logger.output_formats = [Format()]
    model.logger.dump(1)
    assert "train/critic_loss" in seen and seen["train/n_updates"] == model._n_updates


def test_learning_ends_with_all_that_was_logged(deferred):
    model = make().learn(64)
    assert model._pending_log is None
    assert "train/critic_loss" in model._logger.name_to_value


def test_a_log_on_its_way_is_not_in_the_zip(deferred):
    model, zip_file = make().learn(60), io.BytesIO()
    model.train(2, 16)
    model.save(zip_file)
    zip_file.seek(0)
    assert "_pending_log" not in load_from_zip_file(zip_file)[0]
    assert math.isfinite(model.logger.name_to_value["train/critic_loss"])


def test_what_is_not_finite_is_named_one_call_later_with_its_own_number(deferred):
    model = make().learn(60)
    before = model._n_updates
    with th.no_grad():
        model.critic.qf0[0].weight[:] = math.nan
    model.train(2, 16)
    with pytest.raises(ValueError, match=f"mpr_loss is nan at update {before + 1}"):
        model.train(3, 16)
    assert model._n_updates == before + 5
    # It was said
    assert model._pending_log is None
    with pytest.raises(ValueError, match=f"at update {before + 6}"):
        model.train(1, 16), model.logger
