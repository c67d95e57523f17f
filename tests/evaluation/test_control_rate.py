"""What environments say of their step, and what they say by mistake."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper, VecNormalize

from sb3_pave.evaluation.control_rate import control_rate, repetition
from sb3_pave.evaluation.rollout import record_rollout


def environment(dt=None, **members):
    """Pendulum, under a wrapper that has its own dt."""
    members = {"dt": dt} if dt is not None else members
    wrapper = type("Wrapper", (gym.Wrapper,), members)
    return DummyVecEnv([lambda: wrapper(gym.make("Pendulum-v1"))])


@pytest.fixture
def in_processes():
    """Environments in processes of their own, which are ended with the test."""
    started = []

    def start(env_id):
        started.append(SubprocVecEnv([lambda: gym.make(env_id)], start_method="fork"))
        return started[-1]

    yield start
    for env in started:
        env.close()


def raising(error):
    def dt(self):
        raise error

    return property(dt)


@pytest.mark.parametrize(
    ("dt", "rate"), [(0.02, 50.0), (1, 1.0), (np.float32(0.5), 2.0), (np.array(0.1), 10.0), (np.array([0.25]), 4.0)]
)
def test_a_number_of_seconds_is_believed(dt, rate):
    assert control_rate(environment(dt)) == (pytest.approx(rate), None)


def test_pendulum_says_twenty_hertz_and_who_says_nothing_gets_one():
    assert control_rate(DummyVecEnv([lambda: gym.make("Pendulum-v1")])) == (pytest.approx(20.0), None)
    assert control_rate(DummyVecEnv([lambda: gym.make("MountainCarContinuous-v0")])) == (1.0, None)


@pytest.mark.skipif(not hasattr(VecEnv, "has_attr"), reason="since Stable-Baselines3 2.6")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_the_process_of_an_environment_that_says_nothing_lives_on(in_processes):
    silent = in_processes("MountainCarContinuous-v0")
    for env in (silent, VecNormalize(silent)):
        assert control_rate(env) == (1.0, None)
        assert env.reset().shape == (1, 2)
    assert control_rate(in_processes("Pendulum-v1")) == (pytest.approx(20.0), None)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_before_has_attr_of_sb3_environments_in_processes_are_not_asked_and_others_are(in_processes, monkeypatch):
    """As of SB3 2.5."""
    for vec_env in (VecEnv, VecEnvWrapper, SubprocVecEnv):
        monkeypatch.delattr(vec_env, "has_attr", raising=False)
    silent = in_processes("MountainCarContinuous-v0")
    rate, note = control_rate(VecNormalize(silent))
    assert rate == 1.0 and "before Stable-Baselines3 2.6" in note and "--control-rate" in note
    assert silent.reset().shape == (1, 2)
    assert control_rate(environment(0.02)) == (pytest.approx(50.0), None)
    assert control_rate(DummyVecEnv([lambda: gym.make("MountainCarContinuous-v0")])) == (1.0, None)


@pytest.mark.parametrize("error", [EOFError, BrokenPipeError])
def test_that_the_process_of_an_environment_has_ended_is_no_strange_dt(error):
    with pytest.raises(error):
        control_rate(environment(raising(error())))


@pytest.mark.parametrize(
    "dt",
    [
        lambda self: 0.05,
        "20 ms",
        "0.05",
        np.array([0.1, 0.1]),
        [0.05],
        {"control": 0.05},
        True,
        0.0,
        0,
        -0.05,
        np.nan,
        np.inf,
        1e-320,
        1j,
        th.tensor(0.05),
        raising(RuntimeError("not before reset()")),
        raising(KeyError("dt")),
        raising(NotImplementedError()),
    ],
)
def test_anything_else_falls_back_with_a_note_that_says_what_to_do(dt):
    rate, note = control_rate(environment(dt))
    assert rate == 1.0
    assert "--control-rate" in note and len(note) < 250


class FourTimes(gym.Wrapper):
    """As the zoo's FrameSkip, which ``make_vec_env`` puts outside Monitor."""

    def step(self, action):
        for _ in range(3):
            self.env.step(action)
        return self.env.step(action)


def test_a_wrapper_that_repeats_actions_is_said():
    model = SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, buffer_size=10)
    plain, repeating = (
        record_rollout(model, make_vec_env("Pendulum-v1", wrapper_class=wrapper), 1).episodes for wrapper in (None, FourTimes)
    )
    assert repetition(plain) is None
    assert "repeats its actions, 4 times on average" in repetition(repeating)
