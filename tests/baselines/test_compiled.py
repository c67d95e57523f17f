"""The methods join PAVE's compiled steps as they join the others."""

import shutil
import warnings

import pytest
import torch as th

from sb3_pave import PAVE_SAC, PAVE_TD3
from sb3_pave.baselines import asap, damper
from tests.baselines.agents import flat, small


def trained(algorithm, **kwargs):
    # One agent after the other: they draw from the same generators
    model = small(algorithm, learning_starts=60, batch_size=32, policy_kwargs={"net_arch": [32, 24]}, **kwargs).learn(60)
    model.train(30, batch_size=32)
    return flat(model)


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "cl"))), reason="no C++ compiler")
@pytest.mark.parametrize(("factory", "host"), [(damper, PAVE_SAC), (asap, PAVE_TD3)])
def test_thirty_updates_give_the_same_parameters(factory, host):
    with warnings.catch_warnings():
        # PyTorch's compiler, of parts of itself
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
        eager, fast = trained(factory(host)), trained(factory(host), compile=True)
    th.testing.assert_close(fast, eager, rtol=0, atol=2e-5)
    assert (trained(host) - fast).abs().max() > 1e-3
