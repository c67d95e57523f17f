import numpy as np
import pytest
from rl_zoo3 import hyperparams_opt
from rl_zoo3.callbacks import ParallelTrainCallback
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.utils import ALGOS
from stable_baselines3 import SAC, TD3

from sb3_pave import PAVE_SAC, PAVE_TD3
from sb3_pave.zoo import register
from sb3_pave.zoo.registration import replace_hosts

CLASSES = {"pave_td3": PAVE_TD3, "pave_sac": PAVE_SAC}
SAMPLERS = hyperparams_opt.HYPERPARAMS_SAMPLER
CONVERTERS = getattr(hyperparams_opt, "HYPERPARAMS_CONVERTER", {})  # zoo 2.5 has none


@pytest.fixture(autouse=True)
def zoo_as_before():
    """Puts the zoo's dictionaries back after each test."""
    before = [(dictionary, dict(dictionary)) for dictionary in (ALGOS, SAMPLERS, CONVERTERS)]
    yield
    for dictionary, entries in before:
        dictionary.clear()
        dictionary.update(entries)


def snapshot():
    """Everything in the zoo that registering changes."""
    return (
        dict(ALGOS),
        dict(SAMPLERS),
        dict(CONVERTERS),
        ExperimentManager.read_hyperparameters,
        ParallelTrainCallback.process,
    )


def test_register_adds_the_algorithms_and_leaves_the_zoos_own():
    register()
    assert {name: ALGOS[name] for name in CLASSES} == CLASSES
    assert (ALGOS["td3"], ALGOS["sac"]) == (TD3, SAC)
    assert CLASSES.keys() <= SAMPLERS.keys()
    assert not CONVERTERS or CLASSES.keys() <= CONVERTERS.keys()


def test_registering_again_changes_nothing():
    register()
    once = snapshot()
    register()
    assert snapshot() == once


def test_view_only_is_undone_by_registering_for_training():
    register(view_only=True)
    assert ALGOS["pave_sac"] is not PAVE_SAC
    assert issubclass(ALGOS["pave_sac"], PAVE_SAC)
    register()
    assert ALGOS["pave_sac"] is PAVE_SAC


@pytest.mark.parametrize("name", CLASSES)
def test_view_only_load_makes_a_buffer_of_one_transition(name, tmp_path):
    CLASSES[name]("MlpPolicy", "Pendulum-v1", buffer_size=1000, optimize_memory_usage=False).save(tmp_path / "agent")
    register(view_only=True)
    viewer = ALGOS[name]
    model = viewer.load(tmp_path / "agent")

    # The name goes to the model card of push_to_hub
    assert viewer.__name__ == CLASSES[name].__name__
    assert model.replay_buffer.buffer_size == 1
    assert viewer.load(tmp_path / "agent", buffer_size=7).replay_buffer.buffer_size == 7
    observation = np.array([1.0, 0.0, 0.0], dtype=np.float32)
    np.testing.assert_array_equal(
        model.predict(observation, deterministic=True)[0],
        CLASSES[name].load(tmp_path / "agent").predict(observation, deterministic=True)[0],
    )


def test_view_only_load_of_a_memory_efficient_buffer(tmp_path):
    model = PAVE_TD3(
        "MlpPolicy",
        "Pendulum-v1",
        buffer_size=1000,
        optimize_memory_usage=True,
        replay_buffer_kwargs={"handle_timeout_termination": False},
    )
    model.save(tmp_path / "agent")
    register(view_only=True)
    assert ALGOS["pave_td3"].load(tmp_path / "agent").replay_buffer.buffer_size == 1


def test_replacing_the_hosts_is_idempotent_and_leaves_our_names_alone():
    register()
    names = {name: (ALGOS[name], SAMPLERS[name]) for name in CLASSES}
    replace_hosts()
    once = snapshot()
    replace_hosts()
    register()
    assert snapshot() == once
    assert (ALGOS["td3"], ALGOS["sac"]) == (PAVE_TD3, PAVE_SAC)
    # A sampler of a sampler would be another object
    assert {name: (ALGOS[name], SAMPLERS[name]) for name in CLASSES} == names
