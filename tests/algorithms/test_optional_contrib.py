"""sb3-contrib is optional."""

import subprocess
import sys
import textwrap

import pytest

import sb3_pave


def test_without_sb3_contrib_the_rest_works_and_its_algorithms_say_what_to_install():
    script = """
        import sys
        sys.modules["sb3_contrib"] = None  # any import of it fails

        import sb3_pave
        from sb3_pave import *
        from stable_baselines3 import SAC

        class MySAC(SAC):
            pass

        for algorithm in (PAVE_DDPG, PAVE_SAC, PAVE_TD3, pave(MySAC)):
            algorithm("MlpPolicy", "Pendulum-v1", learning_starts=2, buffer_size=10, policy_kwargs={"net_arch": [4]}).learn(4)
        for name in ("PAVE_TQC", "PAVE_CrossQ"):
            assert name in dir(sb3_pave)
            try:
                getattr(sb3_pave, name)
            except ImportError as error:
                assert str(error) == f'{name} needs sb3-contrib: pip install "sb3-pave[contrib]"', error
            else:
                raise AssertionError(name)
    """
    subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(script)], check=True)


def test_an_unknown_name_is_an_attribute_error():
    for name in ("PAVE_PPO", "td3x"):
        with pytest.raises(AttributeError, match=name):
            getattr(sb3_pave, name)
