"""The zoo's viewers: the algorithm under its name, without its memory."""

import pickle

import pytest

pytest.importorskip("rl_zoo3")

import cloudpickle

from sb3_pave import PAVE_SAC, PAVE_TD3, pave
from sb3_pave.zoo.viewing import for_viewing
from tests.algorithms.own_algorithms import MySAC


@pytest.mark.parametrize("algorithm", [PAVE_SAC, PAVE_TD3, pave(MySAC)])
def test_a_viewer_is_pickled_as_itself(algorithm):
    viewer = for_viewing(algorithm)
    assert viewer is for_viewing(algorithm) and viewer is not algorithm and issubclass(viewer, algorithm)
    assert viewer.__name__ == algorithm.__name__ and viewer.__doc__ == algorithm.__doc__
    for module in (pickle, cloudpickle):
        assert module.loads(module.dumps(viewer)) is viewer


def test_it_loads_without_the_memory_unless_told_otherwise(tmp_path):
    PAVE_SAC("MlpPolicy", "Pendulum-v1", buffer_size=1000).save(tmp_path / "agent")
    assert for_viewing(PAVE_SAC).load(tmp_path / "agent").buffer_size == 1
    assert for_viewing(PAVE_SAC).load(tmp_path / "agent", buffer_size=50).buffer_size == 50
