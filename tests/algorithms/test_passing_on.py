"""Whoever uses a host with arguments and defaults of its own finds them in its PAVE class."""

import inspect
import pydoc

import pytest
from stable_baselines3 import SAC, TD3
from torch import nn

from sb3_pave import PAVE_SAC, PAVE_TD3, pave
from tests.algorithms.own_algorithms import MySAC, RegressionAgent, RobustSAC
from tests.algorithms.scenarios import ALGORITHMS, host_of

SMALL = {"policy_kwargs": {"net_arch": [8]}, "learning_starts": 5, "buffer_size": 100, "batch_size": 4}
OURS = [
    *("scale_free", "mpr_coef", "vfc_coef", "curv_coef", "mpr_sigma", "curv_delta"),
    *("pave_interval", "pave_batch_size", "compile", "cuda_graph"),
]


class Extended(SAC):
    """An argument more in every method that PAVE has, too, and defaults of its own."""

    def learn(self, total_timesteps, demonstrations=0, tb_log_name="demo", **kwargs):
        self.demonstrations = demonstrations
        return super().learn(total_timesteps, tb_log_name=tb_log_name, **kwargs)

    def get_parameters(self, with_actor=True):
        parameters = super().get_parameters()
        return parameters if with_actor else {name: state for name, state in parameters.items() if "actor" not in name}

    def _excluded_save_params(self, *further):
        return [*super()._excluded_save_params(), *further, "demonstrations"]

    def _setup_model(self, times=1):
        self.set_up = times
        super()._setup_model()

    def _init_callback(self, callback, progress_bar=False, quiet=True):
        self.quiet = quiet
        return super()._init_callback(callback, progress_bar)

    @classmethod
    def load(cls, file, kind="best", env=None, **kwargs):
        model = super().load(file, env=env, **kwargs)
        model.kind = kind
        return model


class ExtendedTrain(Extended):
    def train(self, gradient_steps, batch_size=7, rehearse=False):
        self.rehearsed = rehearse, batch_size
        super().train(gradient_steps, batch_size)


@pytest.fixture(params=[Extended, ExtendedTrain])
def extended(request):
    return pave(request.param)


def test_arguments_of_the_hosts_methods_arrive(extended, tmp_path):
    model = extended("MlpPolicy", "Pendulum-v1", **SMALL)
    assert model.learn(10, demonstrations=5) is model and model.demonstrations == 5
    assert model.learn(10, 3).demonstrations == 3
    assert "policy" in model.get_parameters() and "actor.optimizer" not in model.get_parameters(with_actor=False)
    assert "tau" in model._excluded_save_params("tau") and "_graphs" in model._excluded_save_params()
    model._setup_model(times=2)
    assert model.set_up == 2
    model._init_callback(None, quiet=False)
    assert model.quiet is False
    model.save(tmp_path / "agent")
    loaded = extended.load(tmp_path / "agent", "last", model.get_env(), curv_coef=0.5, policy_kwargs={"net_arch": [8]})
    assert loaded.kind == "last" and loaded.curv_coef == 0.5
    assert extended.load(file=tmp_path / "agent", kind="last", policy_kwargs={"net_arch": [8]}).kind == "last"


def test_a_host_that_loads_from_elsewhere(tmp_path):
    class FromFolder(SAC):
        @classmethod
        def load(cls, *args, **kwargs):
            return super().load(args[0] / "agent", **kwargs)

    pave(FromFolder)("MlpPolicy", "Pendulum-v1", **SMALL).save(tmp_path / "agent")
    stored = {"net_arch": [8], "use_sde": False, "activation_fn": nn.SiLU}
    assert pave(FromFolder).load(tmp_path, policy_kwargs=stored, curv_coef=0.5).curv_coef == 0.5


def test_arguments_of_the_hosts_train_arrive():
    model = pave(ExtendedTrain)("MlpPolicy", "Pendulum-v1", **SMALL).learn(10)
    model.train(1, rehearse=True)
    assert model.rehearsed == (True, 7)


@pytest.mark.parametrize(
    ("algorithm", "name"),
    [
        (PAVE_SAC, "PAVE_SAC"),
        (pave(MySAC), "PAVE_MySAC"),
        (pave(RobustSAC), "PAVE_RobustSAC"),
        (pave(Extended), "demo"),
        (pave(RegressionAgent), "PAVE_RegressionAgent"),
    ],
)
def test_the_run_folder_has_the_hosts_own_name_else_the_class_name(algorithm, name, tmp_path):
    pytest.importorskip("tensorboard")
    kwargs = {**SMALL, "policy_kwargs": {}} if algorithm is not pave(RegressionAgent) else {"buffer_size": 100}
    policy = "MlpPolicy" if algorithm is not pave(RegressionAgent) else SAC.policy_aliases["MlpPolicy"]
    model = algorithm(policy, "Pendulum-v1", tensorboard_log=tmp_path, **kwargs)
    model.learn(5)
    model.learn(5, tb_log_name="given")
    model.learn(5, reset_num_timesteps=True, tb_log_name="SAC")
    assert {folder.name for folder in tmp_path.iterdir()} == {f"{name}_1", "given_1", "SAC_1"}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_batch_of_train_is_as_large_as_the_hosts(algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1", **SMALL).learn(10)
    sizes = []
    sample = model.replay_buffer.sample
    model.replay_buffer.sample = lambda size, *args, **kwargs: sizes.append(size) or sample(size, *args, **kwargs)
    model.train(1)
    assert sizes == [inspect.signature(host_of(algorithm).train).parameters["batch_size"].default]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_signature_is_the_hosts_and_paves(algorithm):
    shown = inspect.signature(algorithm).parameters
    hosts = inspect.signature(host_of(algorithm)).parameters
    assert list(shown) == [*hosts, *OURS]
    assert all(shown[name] == hosts[name] for name in hosts)
    assert shown["pave_interval"].default == 1 and shown["pave_interval"].kind is inspect.Parameter.KEYWORD_ONLY
    assert all(f"{name}:" in pydoc.render_doc(algorithm) for name in (*hosts, *OURS))
    shown, hosts = inspect.signature(algorithm.learn), inspect.signature(host_of(algorithm).learn)
    assert shown == hosts


def test_the_signature_of_ones_own_algorithm():
    shown = inspect.signature(pave(MySAC)).parameters
    assert list(shown)[:3] == ["policy", "env", "reward_scale"]
    assert {*shown} == {*inspect.signature(SAC).parameters, "reward_scale", *OURS}
    assert shown["learning_rate"].kind is inspect.Parameter.KEYWORD_ONLY
    assert "demonstrations" in inspect.signature(pave(Extended).learn).parameters
    assert "demonstrations" in inspect.signature(pave(Extended)("MlpPolicy", "Pendulum-v1", **SMALL).learn).parameters

    class Narrow(PAVE_TD3):
        def __init__(self, env, curv_coef=0.5):
            super().__init__("MlpPolicy", env, curv_coef=curv_coef)

    class Wide(PAVE_TD3):
        def __init__(self, policy, env, *args, extra=1, **kwargs):
            super().__init__(policy, env, *args, **kwargs)

    assert str(inspect.signature(Narrow)) == "(env, curv_coef=0.5)"
    assert list(inspect.signature(Wide).parameters) == [*inspect.signature(TD3).parameters, "extra", *OURS]


def test_what_the_signature_shows_can_be_given():
    given = {name: p.default for name, p in inspect.signature(PAVE_SAC).parameters.items() if p.default is not p.empty}
    PAVE_SAC("MlpPolicy", "Pendulum-v1", **{**given, "buffer_size": 10})


def test_a_host_with_an_argument_that_pave_would_take_is_refused():
    class Compiled(SAC):
        def __init__(self, *args, compile=False, **kwargs):
            super().__init__(*args, **kwargs)

    class Inherits(Compiled):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)

    for host in (Compiled, Inherits):
        with pytest.raises(TypeError, match=f"{host.__name__} defines compile, which PAVE needs"):
            pave(host)


def test_policy_arguments_that_do_not_fit_are_refused_as_by_the_host(tmp_path):
    PAVE_SAC("MlpPolicy", "Pendulum-v1", **SMALL).save(tmp_path / "agent")
    for given in ({"net_arch": [9]}, {"activation_fn": nn.Tanh}, [("net_arch", [8])], "net_arch"):
        for algorithm in (SAC, PAVE_SAC):
            with pytest.raises(ValueError, match="specified policy kwargs do not equal the stored"):
                algorithm.load(tmp_path / "agent", policy_kwargs=given)
    for algorithm in (SAC, PAVE_SAC):
        for given in ({}, {"policy_kwargs": {"net_arch": [8]}}):
            with pytest.raises(FileNotFoundError):
                algorithm.load(tmp_path / "other", **given)
            (tmp_path / "text.zip").write_text("no zip file")
            with pytest.raises(ValueError, match="wasn't a zip-file"):
                algorithm.load(tmp_path / "text.zip", **given)
            with pytest.raises(TypeError, match="path"):
                algorithm.load(**given)
