"""``compile=True``: the eager path's numbers, a bounded number of compilations, and a way on where it can't compile."""

import shutil
import warnings

import pytest
import torch as th

from sb3_pave import PAVE_SAC, PAVE_TD3, compiled
from sb3_pave.fused_adam import fused_adam

needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "cl"))), reason="no C++ compiler")
SETTINGS = dict(learning_starts=60, batch_size=32, buffer_size=200, policy_kwargs={"net_arch": [32, 24]}, seed=0)


@pytest.fixture(autouse=True)
def compiler_state():
    compiled._can_compile.cache_clear()
    with warnings.catch_warnings():
        # PyTorch's compiler, of parts of itself
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
        yield
    compiled._can_compile.cache_clear()


def train(algorithm, n_updates=50, **kwargs):
    model = algorithm("MlpPolicy", "Pendulum-v1", **SETTINGS, **kwargs).learn(60)
    model.train(n_updates, batch_size=32)
    return model


def flat(model):
    return th.cat([parameter.detach().flatten() for parameter in model.policy.parameters()])


@needs_compiler
@pytest.mark.parametrize("algorithm", [PAVE_TD3, PAVE_SAC])
def test_fifty_updates_give_the_same_parameters(algorithm):
    eager, fast = train(algorithm), train(algorithm, compile=True)
    th.testing.assert_close(flat(fast), flat(eager), rtol=0, atol=1e-5)
    assert not th.equal(flat(fast), flat(algorithm("MlpPolicy", "Pendulum-v1", **SETTINGS)))


@needs_compiler
def test_other_batches_weights_and_learning_rates_compile_a_bounded_number_of_times():
    model = train(PAVE_TD3, 1, compile=True)
    counters = th._dynamo.utils.counters["stats"]
    model.train(1, batch_size=80)
    model.train(1, batch_size=72)
    before = counters["unique_graphs"]
    for batch_size in (90, 100, 128, 65):
        model.mpr_coef = 0.3 / batch_size
        model.lr_schedule = lambda _, rate=1e-3 / batch_size: rate
        model.train(2, batch_size=batch_size)
    assert counters["unique_graphs"] == before


@needs_compiler
def test_a_saved_agent_has_nothing_compiled_in_it(tmp_path):
    model = train(PAVE_SAC, 2, compile=True)
    model.save(tmp_path / "agent")
    loaded = PAVE_SAC.load(tmp_path / "agent", env=model.get_env())
    assert loaded.compile is True
    assert th.equal(flat(loaded), flat(model))
    loaded.learn(62, reset_num_timesteps=False)
    assert PAVE_SAC.load(tmp_path / "agent", compile=False).compile is False


@needs_compiler
def test_adam_is_fused_while_it_trains_only():
    model = train(PAVE_SAC, 1, compile=True)
    optimizers = [model.actor.optimizer, model.critic.optimizer, model.ent_coef_optimizer]
    seen = []
    for optimizer in optimizers:
        optimizer.register_step_pre_hook(lambda optimizer, *_: seen.append(optimizer.param_groups[0]["fused"]))
    model.train(1, batch_size=32)
    assert seen == [True, True, True]
    eager = train(PAVE_SAC, 1)
    for name, state in eager.get_parameters().items():
        if name.endswith("optimizer"):
            assert model.get_parameters()[name]["param_groups"] == state["param_groups"]


@pytest.mark.parametrize("chosen", [{"fused": False}, {"foreach": True}, {"capturable": True}])
def test_an_implementation_that_was_chosen_stays(chosen):
    optimizer = th.optim.Adam([th.zeros(2, requires_grad=True)], **chosen)
    sgd = th.optim.SGD([th.zeros(2, requires_grad=True)])
    before = [dict(optimizer.param_groups[0]), dict(sgd.param_groups[0])]
    with fused_adam([optimizer, sgd]):
        assert [optimizer.param_groups[0], sgd.param_groups[0]] == before


def test_adam_is_not_fused_any_more_after_an_error():
    optimizer = th.optim.Adam([th.zeros(2, requires_grad=True)])
    with pytest.raises(RuntimeError, match="broken"), fused_adam([optimizer]):
        assert optimizer.param_groups[0]["fused"] is True
        raise RuntimeError("broken")
    assert optimizer.param_groups[0]["fused"] is None


def test_without_a_compiler_there_is_one_warning_and_the_eager_path(monkeypatch):
    def no_compiler(function):
        def call(*args):
            raise RuntimeError("No working C++ compiler found\nin any place")

        return call

    monkeypatch.setattr(compiled.th, "compile", no_compiler)
    with pytest.warns(
        UserWarning, match=r"compile=True needs a C\+\+ compiler.*No working C\+\+ compiler found Training"
    ) as caught:
        fast = train(PAVE_TD3, compile=True)
        train(PAVE_TD3, compile=True)
    assert len(caught) == 1
    assert th.equal(flat(fast), flat(train(PAVE_TD3)))


@pytest.mark.parametrize("name", ["compile", "cuda_graph"])
def test_the_modes_are_switches(name):
    with pytest.raises(ValueError, match=f"{name} must be True or False"):
        PAVE_TD3("MlpPolicy", "Pendulum-v1", **{name: "yes"})
