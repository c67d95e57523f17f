"""Updates on a GPU: as they are, recorded as CUDA graphs, compiled, and both; one set of numbers."""

import copy
import importlib.util
import pickle
import warnings

import numpy as np
import pytest
import stable_baselines3
import torch as th
from stable_baselines3.common.torch_layers import FlattenExtractor

from sb3_pave.fast.capture import CudaCapture
from tests.cuda.agents import (
    CASES,
    assert_freed_with_its_buffer,
    assert_same_training,
    case,
    make,
    n_recordings,
    parameters,
    train,
)

triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
COMPILED = ("td3", "sac", "tqc")
# Recordings step Adam by PyTorch's fused implementation. Of convolutions, many gradients are so close to zero that Adam
# divides one rounding by another: two eager runs that differ in that implementation alone are 2e-2 apart
SAME_ADAM = {"td3, images": {"policy_kwargs": {"optimizer_kwargs": {"fused": True}}}}


@pytest.fixture(autouse=True)
def deterministic():
    """cuDNN's convolutions add up in another order at each call otherwise, and so do two eager runs."""
    before = th.backends.cudnn.deterministic, th.backends.cudnn.benchmark
    th.backends.cudnn.deterministic, th.backends.cudnn.benchmark = True, False
    yield
    th.backends.cudnn.deterministic, th.backends.cudnn.benchmark = before


@pytest.mark.parametrize("name", [case(name) for name in CASES])
def test_recorded_updates_are_those_without(name):
    algorithm, kwargs = CASES[name]
    eager = train(make(algorithm, cuda_graph=False, **{**kwargs, **SAME_ADAM.get(name, {})}))
    recorded = train(make(algorithm, cuda_graph=True, **kwargs))
    assert n_recordings(eager) == 0 < n_recordings(recorded)
    assert_same_training(name, recorded, eager)


@triton
@pytest.mark.parametrize("name", [case(name) for name in COMPILED])
def test_recorded_compiled_updates_are_those_without(name):
    algorithm, kwargs = CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = train(make(algorithm, cuda_graph=True, compile=True, **kwargs))
    assert n_recordings(fast) > 0
    assert_same_training(name, fast, train(make(algorithm, cuda_graph=False, **kwargs)))


@pytest.mark.parametrize("algorithm", ["PAVE_TD3", "PAVE_SAC"])
def test_zero_weights_are_the_host_bit_for_bit(algorithm):
    kwargs = {"policy_kwargs": {"activation_fn": th.nn.SiLU}}
    ours = make(algorithm, mpr_coef=0, vfc_coef=0, curv_coef=0, cuda_graph=False, **kwargs)
    theirs = make(algorithm.removeprefix("PAVE_"), module=stable_baselines3, **kwargs)
    assert th.equal(parameters(ours), parameters(theirs))
    for model in (ours, theirs):
        train(model)
    assert th.equal(parameters(ours), parameters(theirs))


def test_by_default_only_what_is_known_is_recorded():
    class Own(FlattenExtractor):
        """Python of the user's."""

    assert n_recordings(train(make("PAVE_SAC"))) > 0
    assert n_recordings(train(make("PAVE_SAC", policy_kwargs={"features_extractor_class": Own}))) == 0
    assert n_recordings(train(make("PAVE_SAC", policy_kwargs={"optimizer_class": th.optim.SGD}))) == 0
    hooked = make("PAVE_SAC")
    hooked.actor.register_forward_hook(lambda *_: None)
    assert n_recordings(train(hooked)) == 0


class Synchronising(FlattenExtractor):
    """Reads a value back in its forward pass, which can't be recorded."""

    def forward(self, observations):
        assert np.isfinite(observations.sum().item())
        return super().forward(observations)


def test_a_recording_that_fails_leaves_training_as_it_would_be_without():
    kwargs = {"policy_kwargs": {"features_extractor_class": Synchronising}}
    eager, model = make("PAVE_TD3", cuda_graph=False, **kwargs), make("PAVE_TD3", cuda_graph=True, **kwargs)
    train(eager)
    with pytest.warns(UserWarning, match="can't be recorded") as caught:
        train(model)
    assert len(caught) == 1
    assert_same_training("failed recording", model, eager)
    # Others in the process, random numbers included
    th.randn(3, device="cuda")
    other = train(make("PAVE_SAC", cuda_graph=True))
    assert n_recordings(other) > 0
    assert_same_training("after a failed recording", other, train(make("PAVE_SAC", cuda_graph=False)))
    model.learn(130, reset_num_timesteps=False)


@pytest.mark.parametrize("error", [KeyboardInterrupt, th.OutOfMemoryError])
def test_an_error_inside_a_recording_leaves_random_numbers_as_they_were(error):
    model = train(make("PAVE_SAC", cuda_graph=True), calls=1, updates=2)
    step = model._gradient_step

    def fails_half_way(*args, **kwargs):
        if th.cuda.is_current_stream_capturing():
            th.randn(3, device="cuda")
            raise error("half-way")
        step(*args, **kwargs)

    model._gradient_step = fails_half_way
    outcome = pytest.raises(KeyboardInterrupt) if error is KeyboardInterrupt else pytest.warns(UserWarning, match="half-way")
    with outcome:
        for _ in range(8):
            before = th.cuda.get_rng_state()
            model.train(1, 64)
    if error is KeyboardInterrupt:
        assert th.equal(th.cuda.get_rng_state(), before)
        del model._gradient_step
    assert th.cuda.current_stream() == th.cuda.default_stream()
    train(model)
    assert th.isfinite(parameters(model)).all()


def test_what_an_interrupted_warm_up_began_is_waited_for():
    value, capture = th.zeros((), device="cuda"), CudaCapture(th.device("cuda"))

    def begun():
        th.cuda._sleep(100_000_000)
        value.fill_(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        capture.warm_up(begun)
    assert value.item() == 1


@pytest.mark.parametrize("algorithm", ["PAVE_TD3", "PAVE_SAC"])
def test_saving_and_loading_in_the_middle(algorithm, tmp_path):
    model = train(make(algorithm, cuda_graph=True))
    model.save(tmp_path / "agent")
    plain = getattr(stable_baselines3, algorithm.removeprefix("PAVE_")).load(tmp_path / "agent", env=model.get_env())
    loaded = type(model).load(tmp_path / "agent", env=model.get_env())
    assert loaded.cuda_graph is True and plain.critic.optimizer.param_groups[0]["capturable"] is False
    for other in (plain, loaded):
        other.replay_buffer = model.replay_buffer
        other.set_logger(model.logger)
    plain.train(2, 64)
    train(loaded), train(model)
    assert n_recordings(loaded) > 0
    assert_same_training("loaded", loaded, model)


def test_copies_and_pickles_record_anew():
    model = train(make("PAVE_TD3", cuda_graph=True))
    model.train(1, 64)  # whose log is on its way
    twins = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model]
    for twin in twins:
        train(twin)
        assert n_recordings(twin) > 0
    for twin in twins:
        assert_same_training("copied", twin, model)


@pytest.mark.parametrize("algorithm", ["PAVE_TD3", "PAVE_SAC"])
def test_a_recorded_agent_that_nobody_keeps_is_gone_with_its_replay_buffer(algorithm):
    def recorded():
        model = train(make(algorithm, cuda_graph=True))
        assert n_recordings(model) > 0
        return model

    assert_freed_with_its_buffer(recorded)


@pytest.mark.skipif(th.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_another_device_than_the_current_one():
    eager, recorded = (train(make("PAVE_TD3", cuda_graph=graph, device="cuda:1"), updates=50) for graph in (False, True))
    assert n_recordings(recorded) > 0
    assert (parameters(recorded) - parameters(eager)).abs().max() < 5e-5


def test_two_agents_in_turn():
    kwargs = [("PAVE_TD3", {}), ("PAVE_SAC", {})]
    pairs = [[make(name, cuda_graph=graph) for name, _ in kwargs] for graph in (False, True)]
    for agents in pairs:
        th.manual_seed(1)
        np.random.seed(1)
        for _ in range(20):
            for agent in agents:
                agent.train(2, 64)
    for eager, recorded in zip(*pairs, strict=True):
        assert_same_training("in turn", recorded, eager)


@pytest.mark.parametrize("name", ["td3", "sac", "sac, gSDE", "sac, Dict"])
def test_whole_training_runs_are_the_same(name):
    algorithm, kwargs = CASES[name]

    def run(cuda_graph):
        model = make(algorithm, cuda_graph=cuda_graph, **kwargs)
        th.manual_seed(1)
        np.random.seed(1)
        model.action_space.seed(1)
        return model.learn(60, reset_num_timesteps=False)

    eager, recorded = run(False), run(True)
    acting = recorded._standing.acting
    if "gSDE" in name:
        assert acting is None
    else:
        assert [recording.replay is not None for recording in acting._recordings.values()] == [True]
    assert_same_training("whole run", recorded, eager)
    np.testing.assert_allclose(recorded.replay_buffer.actions, eager.replay_buffer.actions, atol=1e-4)


def test_an_infinite_term_is_named_one_call_later_at_most():
    model = train(make("PAVE_TD3", cuda_graph=True))
    model.replay_buffer.rewards[:] = np.inf
    with pytest.raises(ValueError, match="at update"):
        for _ in range(3):
            model.train(1, 64)


def test_reading_the_log_gives_the_last_call():
    model = train(make("PAVE_TD3", cuda_graph=True))
    n_updates = model._n_updates
    model.train(1, 64)
    log = model.logger.name_to_value
    assert log["train/n_updates"] == n_updates + 1 and np.isfinite(log["train/critic_loss"])
