"""One update in each way that there is to do it: the definition's parameters and log."""

import shutil

import numpy as np
import pytest
import torch as th

from sb3_pave.algorithms import fast_execution
from sb3_pave.algorithms.execution import Execution
from sb3_pave.algorithms.fast_execution import ClosedForm, Recorded, StandIns
from sb3_pave.fast.graphs import GraphedUpdate
from tests.algorithms.scenarios import ALGORITHMS, make


class Rerun:
    """In the place of a CUDA graph: what was recorded is run again."""

    capturable = False
    obstacle = None
    device = th.device("cpu")

    def warm_up(self, update):
        return update()

    def record(self, update):
        return update


def recorded(model):
    model._graphs = GraphedUpdate(Rerun())
    assert model._graphs.prepare(model._optimizers(), list(model.policy.parameters()), {})
    return Recorded(Execution(model), model._graphs)


needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "cl"))), reason="no C++ compiler")
WAYS = {
    "definition": Execution,
    "closed form": ClosedForm,
    "stand-ins": StandIns,
    "compiled": lambda model: StandIns(model, compile=True),
    "recorded": recorded,
}


@pytest.mark.parametrize("way", [pytest.param(w, marks=needs_compiler if w == "compiled" else []) for w in WAYS][1:])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_ten_updates_are_those_of_the_definition(algorithm, way, monkeypatch):
    if algorithm.__name__ == "PAVE_CrossQ" and way in ("stand-ins", "compiled"):
        pytest.skip("batch renormalisation has no function that stands in for it")

    def update(name):
        monkeypatch.setattr(fast_execution, "choose_execution", None)
        model = make(algorithm, "mlp").learn(40)
        monkeypatch.setattr("sb3_pave.algorithms.mixin.choose_execution", WAYS[name])
        model._standing = None
        th.manual_seed(1)
        np.random.seed(1)
        model.train(10, batch_size=16)
        parameters = th.cat([parameter.detach().flatten() for parameter in model.policy.parameters()])
        return parameters, {tag: value for tag, value in model.logger.name_to_value.items() if tag.startswith("train/")}

    (ours, log), (expected, expected_log) = update(way), update("definition")
    th.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    assert log.keys() == expected_log.keys()
    for tag, value in expected_log.items():
        assert log[tag] == pytest.approx(value, rel=1e-3, abs=1e-5), tag
