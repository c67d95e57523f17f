"""Classes made at run time arrive in other processes."""

import copy
import multiprocessing
import pickle
import subprocess
import sys
import textwrap
from abc import ABCMeta

import cloudpickle
import pytest
from stable_baselines3 import SAC

from sb3_pave import PAVE_SAC, pave
from sb3_pave.algorithms.made_classes import make_class
from tests.algorithms.own_algorithms import MySAC, RegressionAgent, RobustSAC

HOSTS = (MySAC, RobustSAC, RegressionAgent)


class Registering(ABCMeta):
    """A metaclass of the user's."""


class RegisteredSAC(SAC, metaclass=Registering):
    pass


class Subclass(pave(MySAC)):
    pass


def same_named():
    class MySAC(SAC):
        """Cannot be pickled itself, but by cloudpickle."""

    return MySAC


@pytest.mark.parametrize("made", [*map(pave, HOSTS), pave(RegisteredSAC), Subclass])
@pytest.mark.parametrize("module", [pickle, cloudpickle])
@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_pickled_and_back_a_class_is_itself(made, module, protocol):
    assert module.loads(module.dumps(made, protocol=protocol)) is made
    assert pickle._loads(pickle._dumps(made)) is made  # Python's own implementation
    assert copy.deepcopy(made) is made
    load = module.loads(module.dumps(made.load))
    assert load.__self__ is made and load.__name__ == "load"


def test_two_hosts_of_one_name_are_told_apart():
    first, second, third = pave(MySAC), pave(same_named()), pave(same_named())
    assert {made.__name__ for made in (first, second, third)} == {"PAVE_MySAC"}
    for made in (first, second, third):
        assert cloudpickle.loads(cloudpickle.dumps(made)) is made
    with pytest.raises((pickle.PicklingError, AttributeError), match="same_named"):
        pickle.dumps(second)


def test_an_agent_is_pickled_with_its_class():
    model = pave(MySAC)("MlpPolicy", "Pendulum-v1", buffer_size=10)
    assert type(cloudpickle.loads(cloudpickle.dumps(model))) is pave(MySAC)


def test_a_made_class_is_a_class_like_any_other():
    made = pave(MySAC)
    assert isinstance(made, ABCMeta) and issubclass(type(made), ABCMeta) and issubclass(made, (PAVE_SAC, MySAC))
    assert isinstance(pave(RegisteredSAC), Registering)
    assert type(Subclass) is type(made) and pave(Subclass) is Subclass
    with pytest.raises(AttributeError, match="PAVE_Nothing"):
        from sb3_pave.algorithms import made_classes

        made_classes.PAVE_Nothing  # noqa: B018
    assert make_class("Plain", (dict,), {"x": 1}, dict).x == 1


def describe(cls):
    return cls, cls.__name__, pave(MySAC) is cls


def test_a_spawned_process_gets_them():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(describe, (pave(MySAC),)) == (pave(MySAC), "PAVE_MySAC", True)


@pytest.mark.parametrize("maker", ["sb3_pave import pave", "sb3_pave.baselines import caps"])
def test_of_a_host_in_main_they_reach_spawned_processes_and_joblibs_workers(maker, tmp_path):
    pytest.importorskip("joblib")
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import multiprocessing
            from joblib import Parallel, delayed
            from stable_baselines3 import SAC
            from {maker} as made

            class MySAC(SAC):
                pass

            def describe(cls):
                return cls, made(MySAC) is cls

            if __name__ == "__main__":
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    assert pool.apply(describe, (made(MySAC),)) == (made(MySAC), True)
                for backend in ("loky", "multiprocessing"):
                    results = Parallel(2, backend=backend)(delayed(describe)(made(MySAC)) for _ in range(2))
                    assert results == [(made(MySAC), True)] * 2, (backend, results)
            """
        )
    )
    subprocess.run([sys.executable, script], check=True)
