"""``compile=True``: the eager path's numbers, a bounded number of compilations, and a way on where it can't compile."""

import shutil

import pytest
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.sac import policies as gaussian

from sb3_pave import PAVE_DDPG, PAVE_SAC, PAVE_TD3, PAVE_TQC, pave
from sb3_pave.fast import compiled, matmul
from sb3_pave.fast.fused_adam import fused_adam
from tests.algorithms.own_algorithms import with_own_train
from tests.algorithms.scenarios import NormalizedExtractor

needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "cl"))), reason="no C++ compiler")
SETTINGS = dict(learning_starts=60, batch_size=32, buffer_size=200, policy_kwargs={"net_arch": [32, 24]}, seed=0)


@pytest.fixture(autouse=True)
def compiler_state():
    compiled._can_compile.cache_clear()
    yield
    compiled._can_compile.cache_clear()


def train(algorithm, n_updates=50, policy_kwargs=None, **kwargs):
    settings = {**SETTINGS, "policy_kwargs": {**SETTINGS["policy_kwargs"], **(policy_kwargs or {})}, **kwargs}
    model = algorithm("MlpPolicy", "Pendulum-v1", **settings).learn(60)
    if n_updates > 0:
        model.train(n_updates, batch_size=32)
    return model


def flat(model):
    return th.cat([parameter.detach().flatten() for parameter in model.policy.parameters()])


MEMORY_OPTIMISED = {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}}
CASES = {
    "td3": (PAVE_TD3, {}),
    "sac": (PAVE_SAC, {}),
    "tqc": (PAVE_TQC, {}),
    "ddpg": (PAVE_DDPG, {}),
    "part of the batch": (PAVE_SAC, {"pave_batch_size": 20}),
    "curvature only": (PAVE_SAC, {"mpr_coef": 0.0, "vfc_coef": 0.0}),
    "without curvature": (PAVE_TD3, {"curv_coef": 0.0}),
    "missing successors": (PAVE_TD3, MEMORY_OPTIMISED),
    # Its features have parameters, and are others in training: the TD loss is evaluated apart
    "batch normalisation": (PAVE_TD3, {"policy_kwargs": {"features_extractor_class": NormalizedExtractor}}),
    "own train()": (pave(with_own_train(SAC)), {}),
}


@needs_compiler
@pytest.mark.filterwarnings("ignore:curv_coef=0 while MPR or VFC is on")
@pytest.mark.parametrize("case", CASES)
def test_fifty_updates_give_the_same_parameters(case):
    algorithm, kwargs = CASES[case]
    th._dynamo.utils.counters.clear()
    eager, fast = train(algorithm, **kwargs), train(algorithm, compile=True, **kwargs)
    th.testing.assert_close(flat(fast), flat(eager), rtol=0, atol=1e-5)
    assert not th.equal(flat(fast), flat(train(algorithm, 0, **kwargs)))
    # Each part in one graph
    assert not th._dynamo.utils.counters["graph_break"]


@needs_compiler
def test_products_by_onednn_give_the_same_parameters(monkeypatch):
    if matmul._ONEDNN_LINEAR is None:
        pytest.skip("no AVX-512 here")
    monkeypatch.setattr(matmul, "_PREFERS_ONEDNN", False)
    eager = train(PAVE_TD3)
    calls, linear = [], matmul._ONEDNN_LINEAR
    for name, value in (("_PREFERS_ONEDNN", True), ("_SMALL", 1), ("_FEW", 0)):
        monkeypatch.setattr(matmul, name, value)
    monkeypatch.setattr(matmul, "_ONEDNN_LINEAR", lambda *inputs: calls.append(inputs) or linear(*inputs))
    th.testing.assert_close(flat(train(PAVE_TD3, compile=True)), flat(eager), rtol=0, atol=1e-5)
    assert calls


@needs_compiler
def test_another_agent_of_the_same_sizes_compiles_nothing():
    train(PAVE_SAC, 2, compile=True)
    before = th._dynamo.utils.counters["stats"]["unique_graphs"]
    train(PAVE_SAC, 2, compile=True, gamma=0.5, tau=0.1, curv_coef=0.7, curv_delta=0.03, ent_coef=0.1, learning_rate=1e-4)
    assert th._dynamo.utils.counters["stats"]["unique_graphs"] == before > 0


@needs_compiler
def test_other_batches_weights_and_learning_rates_compile_a_bounded_number_of_times():
    model = train(PAVE_TD3, 1, compile=True)
    counters = th._dynamo.utils.counters["stats"]
    # Two updates each: TD3 updates its actor in every other one
    model.train(2, batch_size=80)
    model.train(2, batch_size=72)
    before = counters["unique_graphs"]
    for batch_size in (90, 100, 128, 65):
        model.mpr_coef = 0.3 / batch_size
        model.lr_schedule = lambda _, rate=1e-3 / batch_size: rate
        model.train(2, batch_size=batch_size)
    assert counters["unique_graphs"] == before


@needs_compiler
def test_constants_of_sb3_may_change_after_the_compilation(monkeypatch):
    train(PAVE_SAC, 2, compile=True)
    before = flat(train(PAVE_SAC, 2))
    monkeypatch.setattr(gaussian, "LOG_STD_MAX", -3)
    eager = flat(train(PAVE_SAC, 2))
    assert not th.allclose(eager, before, rtol=0, atol=1e-4)
    th.testing.assert_close(flat(train(PAVE_SAC, 2, compile=True)), eager, rtol=0, atol=1e-5)


@needs_compiler
def test_a_saved_agent_has_nothing_compiled_in_it(tmp_path):
    model = train(PAVE_SAC, 2, compile=True)
    model.save(tmp_path / "agent")
    loaded = PAVE_SAC.load(tmp_path / "agent", env=model.get_env())
    assert loaded.compile is True
    assert th.equal(flat(loaded), flat(model))
    loaded.learn(62, reset_num_timesteps=False)
    assert PAVE_SAC.load(tmp_path / "agent", compile=False).compile is False


def test_adam_is_fused_while_it_trains_only():
    model = train(PAVE_SAC, 1)
    optimizers = [model.actor.optimizer, model.critic.optimizer, model.ent_coef_optimizer]
    seen = []
    for optimizer in optimizers:
        optimizer.register_step_pre_hook(lambda optimizer, *_: seen.append(optimizer.param_groups[0]["fused"]))
    model.train(1, batch_size=32)
    assert seen == [True, True, True]
    # Without terms it is the host's
    model.mpr_coef = model.vfc_coef = model.curv_coef = 0.0
    model.train(1, batch_size=32)
    assert seen[3:] == [None, None, None]
    host = SAC("MlpPolicy", "Pendulum-v1")
    for name, state in host.get_parameters().items():
        if name.endswith("optimizer"):
            groups = model.get_parameters()[name]["param_groups"]
            assert [group["fused"] for group in groups] == [group["fused"] for group in state["param_groups"]] == [None]


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


@needs_compiler
def test_what_does_not_compile_runs_as_it_is(monkeypatch):
    """As where a process was killed while it wrote into PyTorch's cache."""
    th._dynamo.reset()  # nothing is compiled already
    assert compiled.can_compile(th.device("cpu"))

    def fail(graph, example_inputs):
        raise ImportError("/tmp/cache/c1.main.so: file too short")

    monkeypatch.setattr(compiled, "_without_warnings", fail)
    eager = train(PAVE_TD3, 4)
    message = "c1.main.so: file too short Training goes on with this part uncompiled"
    with pytest.warns(UserWarning, match=message) as caught:
        damaged = train(PAVE_TD3, 4, compile=True)
    assert {warning.filename for warning in caught} == {__file__}  # the user's line, through PyTorch
    th.testing.assert_close(flat(damaged), flat(eager), rtol=0, atol=1e-5)
    assert not th.equal(flat(damaged), flat(train(PAVE_TD3, 0)))
    th._dynamo.reset()


def test_what_the_compiler_cannot_read_runs_as_it_is_after_one_warning(monkeypatch):
    """PyTorch 2.3 fails before there is a graph to build."""
    assert compiled.can_compile(th.device("cpu"))
    attempts = []

    def unreadable(function, **options):
        def call(*args):
            attempts.append(function)
            raise th._dynamo.exc.InternalTorchDynamoError("TensorVariable() is not a constant\n\nfrom user code:\n ...")

        return call

    monkeypatch.setattr(compiled.th, "compile", unreadable)
    compiled.compiled.cache_clear()
    message = "TensorVariable.. is not a constant Training goes on with this part uncompiled"
    with pytest.warns(UserWarning, match=message) as caught:
        fast = train(PAVE_TD3, 4, compile=True)
    compiled.compiled.cache_clear()
    assert len(caught) == len(attempts) == len(set(attempts)) > 1 and {warning.filename for warning in caught} == {__file__}
    th.testing.assert_close(flat(fast), flat(train(PAVE_TD3, 4)), rtol=0, atol=1e-5)


def test_without_a_compiler_there_is_one_warning_and_the_eager_path(monkeypatch):
    def no_compiler(function, **options):
        def call(*args):
            raise BackendFailed("backend='inductor' raised:\nRuntimeError: ...")

        return call

    monkeypatch.setattr(compiled.th, "compile", no_compiler)
    with pytest.warns(
        UserWarning, match=r"compile=True needs a C\+\+ compiler.*No working C\+\+ compiler found in any place Training"
    ) as caught:
        fast = train(PAVE_TD3, compile=True)
        train(PAVE_TD3, compile=True)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert th.equal(flat(fast), flat(train(PAVE_TD3)))


class BackendFailed(RuntimeError):
    """As PyTorch wraps what its compiler raises."""

    inner_exception = RuntimeError("No working C++ compiler found in any place")


def test_a_compilers_error_is_in_the_line():
    error = RuntimeError(
        "C++ compile error\n\nCommand:\ng++ ...\nOutput:\nx.cpp:3:10: fatal error: omp.h: No such file\n#include"
    )
    assert compiled.in_a_line(error) == "C++ compile error x.cpp:3:10: fatal error: omp.h: No such file"


@needs_compiler
def test_to_trace_again_is_no_failure(monkeypatch):
    """PyTorch asks for it where a number that changes has to be a constant."""

    def again(graph, example_inputs):
        raise th._dynamo.exc.RestartAnalysis

    monkeypatch.setattr(compiled, "_without_warnings", again)
    with pytest.raises(th._dynamo.exc.RestartAnalysis):
        compiled._or_as_it_is(None, [])


def test_without_terms_nothing_is_compiled_and_the_parameters_are_the_hosts(monkeypatch):
    monkeypatch.setattr(compiled.th, "compile", lambda *args, **kwargs: pytest.fail("compiles"))
    zero = {"mpr_coef": 0.0, "vfc_coef": 0.0, "curv_coef": 0.0}
    host = train(SAC, 5, policy_kwargs={"activation_fn": th.nn.SiLU})
    assert th.equal(flat(train(PAVE_SAC, 5, compile=True, **zero)), flat(host))


@needs_compiler
@pytest.mark.parametrize("algorithm", [PAVE_TD3, PAVE_SAC])
def test_layers_without_biases_train_between_the_updates_with_terms(algorithm):
    def trained(**kwargs):
        model = train(algorithm, 0, pave_interval=2, **kwargs)
        for critic in (model.critic, model.critic_target):
            for network in critic.q_networks:
                network[0].bias = None
        model.critic.optimizer.param_groups[0]["params"] = list(model.critic.parameters())
        model.train(4, batch_size=32)
        return flat(model)

    th.testing.assert_close(trained(compile=True), trained(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "allowed"), [("compile", "True or False"), ("cuda_graph", 'True, False or "auto"')])
def test_the_modes_are_switches(name, allowed):
    with pytest.raises(ValueError, match=f"{name} must be {allowed}, not 'yes'"):
        PAVE_TD3("MlpPolicy", "Pendulum-v1", **{name: "yes"})
