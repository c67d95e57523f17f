"""Bad input fails at construction, with what to do; ordinary use warns of nothing."""

import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EveryNTimesteps
from stable_baselines3.common.envs import BitFlippingEnv, IdentityEnv
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_pave import PAVE_SAC, PAVE_TD3, PAVE_CrossQ, pave
from tests.algorithms.environments import RandomObservationEnv
from tests.algorithms.scenarios import ALGORITHMS, host_of, layers_of

every = pytest.mark.parametrize("algorithm", ALGORITHMS)
SMALL = {"policy_kwargs": {"net_arch": [8]}, "learning_starts": 5, "buffer_size": 100, "batch_size": 4}


def small(**policy_kwargs):
    return {**SMALL, "policy_kwargs": {"net_arch": [8], **policy_kwargs}}


@every
@pytest.mark.parametrize("name", ["mpr_coef", "vfc_coef", "curv_coef", "mpr_sigma", "curv_delta"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_negative_or_infinite_hyperparameters_are_refused(algorithm, name, value):
    with pytest.raises(ValueError, match=f"{name} must be finite and not negative"):
        algorithm("MlpPolicy", "Pendulum-v1", **{name: value})


NUMBERS = {
    "float32": np.float32(0.25),
    "array of no dimension": np.array(0.25),
    "tensor of no dimension": th.tensor(0.25),
    "fraction": Fraction(1, 4),
    "decimal": Decimal("0.25"),
}


@pytest.mark.parametrize("given", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("name", ["mpr_coef", "vfc_coef", "curv_coef", "mpr_sigma", "curv_delta"])
def test_whatever_means_a_number_is_kept_as_a_plain_one(name, given):
    model = PAVE_SAC("MlpPolicy", "Pendulum-v1", **{name: given}, **SMALL)
    assert type(getattr(model, name)) is float and getattr(model, name) == 0.25
    setattr(model, name, given)
    model.learn(7)
    assert type(getattr(model, name)) is float


def test_whole_numbers_and_flags_of_other_kinds_are_kept_as_plain_ones(tmp_path):
    given = {"pave_batch_size": np.int64(4), "compile": np.False_, "cuda_graph": np.array(False), "mpr_coef": 1}
    given.update(scale_free=np.True_, pave_interval=np.array(2))
    model = PAVE_TD3("MlpPolicy", "Pendulum-v1", **given, **SMALL)
    assert [type(getattr(model, name)) for name in given] == [int, bool, bool, float, bool, int]
    assert PAVE_TD3("MlpPolicy", "Pendulum-v1", pave_batch_size=4.0, **SMALL).pave_batch_size == 4
    model.save(tmp_path / "agent")
    loaded = PAVE_TD3.load(tmp_path / "agent", pave_batch_size=np.array(8), mpr_coef=np.float64(0.5))
    assert type(loaded.pave_batch_size) is int and type(loaded.mpr_coef) is float and loaded.mpr_coef == 0.5


NO_NUMBERS = {
    "schedule": lambda progress: 0.1 * progress,
    "list": [0.1],
    "array": np.array([0.1]),
    "flag": True,
    "NumPy's flag": np.True_,
    "complex": 0.1 + 0j,
    "dict": {"value": 0.1},
    "NumPy's text": np.str_("0.1"),
}


@pytest.mark.parametrize("given", NO_NUMBERS.values(), ids=NO_NUMBERS)
@pytest.mark.parametrize("name", ["mpr_coef", "curv_delta"])
def test_what_means_no_number_is_refused_by_name(name, given):
    with pytest.raises(ValueError, match=f"{name} must be a number, not"):
        PAVE_SAC("MlpPolicy", "Pendulum-v1", **{name: given})


@every
def test_none_means_the_default_at_construction_alone(algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1", mpr_coef=None, **SMALL).learn(10)
    assert model.mpr_coef == 0.5
    model.mpr_coef = None
    with pytest.raises(ValueError, match="mpr_coef must be a number, not None"):
        model.train(1)


@pytest.mark.parametrize("given", [0, 1.5, None, "2", True])
def test_an_interval_that_is_no_number_of_updates_is_refused(given):
    with pytest.raises(ValueError, match="pave_interval must be a positive whole number of updates"):
        PAVE_SAC("MlpPolicy", "Pendulum-v1", pave_interval=given)


def test_numbers_too_large_are_refused_by_name():
    with pytest.raises(ValueError, match="vfc_coef must be finite"):
        PAVE_SAC("MlpPolicy", "Pendulum-v1", vfc_coef=10**400)


@pytest.mark.parametrize("given", [None, 1, "true", 0.0, [True]])
@pytest.mark.parametrize("name", ["compile", "cuda_graph", "scale_free"])
def test_flags_that_are_none_are_refused_by_name(name, given):
    with pytest.raises(ValueError, match=f"{name} must be True"):
        PAVE_SAC("MlpPolicy", "Pendulum-v1", **{name: given})


@every
def test_a_number_that_yaml_read_as_text_is_refused(algorithm):
    with pytest.raises(ValueError, match=r"write 1\.0e-2"):
        algorithm("MlpPolicy", "Pendulum-v1", curv_coef="1e-2")


@every
def test_hyperparameters_changed_in_place_are_checked_when_training(algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1", **SMALL).learn(10)
    model.mpr_coef = -1.0
    with pytest.raises(ValueError, match="mpr_coef must be finite"):
        model.train(1, 4)


@every
def test_a_discrete_action_space_is_refused(algorithm):
    with pytest.raises(ValueError, match="Box action space"):
        algorithm("MlpPolicy", IdentityEnv(2))
    # As SB3 does
    for cls in (algorithm, host_of(algorithm)):
        with pytest.raises(AssertionError, match=r"Discrete\(2\)"):
            cls("MlpPolicy", IdentityEnv(2))


@every
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8])
def test_integer_actions_are_refused(algorithm, dtype):
    env = RandomObservationEnv(spaces.Box(-1, 1, (3,)))
    env.action_space = spaces.Box(0, 5, (2,), dtype)
    with pytest.raises(AssertionError, match=f"of floating-point numbers, but this one is of {np.dtype(dtype)}"):
        algorithm("MlpPolicy", env)


def test_sb3s_refusal_of_unbounded_actions_is_left_as_it_is():
    env = RandomObservationEnv(spaces.Box(-1, 1, (3,)))
    env.action_space = spaces.Box(-np.inf, np.inf, (2,))
    with pytest.raises(AssertionError, match="finite lower and upper bound"):
        PAVE_TD3("MlpPolicy", env)


DISCRETE = {
    "Discrete": spaces.Discrete(4),
    "MultiDiscrete": spaces.MultiDiscrete([3, 4]),
    "MultiBinary": spaces.MultiBinary(3),
    "integers": spaces.Box(0, 9, (3,), np.int32),
    "Dict": spaces.Dict({"bits": spaces.MultiBinary(3), "cell": spaces.Discrete(4)}),
}


@every
@pytest.mark.parametrize("space", DISCRETE.values(), ids=DISCRETE)
def test_without_observations_to_perturb_mpr_contributes_nothing_and_one_warning_says_so(algorithm, space):
    policy = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"
    if algorithm is PAVE_CrossQ and isinstance(space, spaces.Dict):
        pytest.skip("CrossQ has no policy for Dict observations")

    def trained(**kwargs):
        return algorithm(policy, RandomObservationEnv(space), seed=0, vfc_coef=1.0, **kwargs, **SMALL).learn(12)

    with pytest.warns(UserWarning, match="MPR contributes nothing") as warned:
        model = trained()
    assert len(warned) == 1 and model.mpr_coef == 0.5
    without = trained(mpr_coef=0)
    for ours, expected in zip(model.policy.parameters(), without.policy.parameters(), strict=True):
        assert th.equal(ours, expected)
    logged = {name for name in model.logger.name_to_value if name.startswith("train/")}
    assert "train/vfc_loss" in logged and logged == {n for n in without.logger.name_to_value if n.startswith("train/")}


def test_an_agent_without_observations_to_perturb_is_saved_and_loaded(tmp_path):
    with pytest.warns(UserWarning, match="MPR contributes nothing"):
        model = PAVE_SAC("MultiInputPolicy", BitFlippingEnv(continuous=True), **SMALL).learn(10)
    model.save(tmp_path / "agent")
    assert "_mpr_is_idle" not in load_from_zip_file(tmp_path / "agent")[0]
    # Without an environment nothing can be told, and nothing has to be: warnings are errors here
    loaded = PAVE_SAC.load(tmp_path / "agent")
    assert loaded.mpr_coef == 0.5
    with pytest.warns(UserWarning, match="MPR contributes nothing"):
        PAVE_SAC.load(tmp_path / "agent", env=model.get_env())


@every
def test_unknown_arguments_fail_as_in_sb3(algorithm):
    with pytest.raises(TypeError, match="mpr_coeff"):
        algorithm("MlpPolicy", "Pendulum-v1", mpr_coeff=0.1)


@every
def test_positional_arguments_are_the_hosts(algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1", 5e-4, 1234)
    assert model.learning_rate == 5e-4 and model.buffer_size == 1234


@every
def test_relu_with_curvature_warns_and_trains(algorithm):
    with pytest.warns(UserWarning, match="piecewise linear"):
        model = algorithm("MlpPolicy", "Pendulum-v1", **small(activation_fn=nn.ReLU))
    model.learn(20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        algorithm("MlpPolicy", "Pendulum-v1", mpr_coef=0, vfc_coef=0, curv_coef=0, **small(activation_fn=nn.ReLU))


@every
def test_no_curvature_preservation_warns(algorithm):
    with pytest.warns(UserWarning, match="flatten Q"):
        algorithm("MlpPolicy", "Pendulum-v1", curv_coef=0, **small())


@pytest.mark.parametrize("algorithm", [PAVE_SAC, pave(type("Mine", (SAC,), {}))])
def test_warnings_are_at_the_users_line(algorithm, tmp_path):
    with pytest.warns(UserWarning, match="flatten Q") as built:
        model = algorithm("MlpPolicy", "Pendulum-v1", curv_coef=0, **small())
    model.save(tmp_path / "agent")
    with pytest.warns(UserWarning, match="flatten Q") as loaded:
        algorithm.load(tmp_path / "agent")
    assert [warning.filename for warning in (*built, *loaded)] == [__file__, __file__]


@every
def test_silu_is_put_into_a_copy_of_the_users_arguments(algorithm):
    given = {"net_arch": [8]}
    model = algorithm("MlpPolicy", "Pendulum-v1", policy_kwargs=given)
    assert given == {"net_arch": [8]}
    assert layers_of(model.critic, nn.SiLU) and layers_of(model.actor, nn.SiLU) and not layers_of(model.policy, nn.ReLU)
    tanh = algorithm("MlpPolicy", "Pendulum-v1", **small(activation_fn=nn.Tanh))
    assert layers_of(tanh.critic, nn.Tanh) and not layers_of(tanh.policy, nn.SiLU)


def test_networks_that_are_put_off_are_the_constructors(tmp_path):
    model = PAVE_SAC("MlpPolicy", "Pendulum-v1", _init_setup_model=False, **SMALL)
    model._setup_model()
    assert layers_of(model.critic, nn.SiLU) and not layers_of(model.policy, nn.ReLU)
    model.learn(7).save(tmp_path / "model")
    assert PAVE_SAC.load(tmp_path / "model", env=model.get_env()).policy_kwargs == model.policy_kwargs
    # Also where a loaded agent's constructor runs between
    later = PAVE_SAC("MlpPolicy", "Pendulum-v1", _init_setup_model=False, **SMALL)
    PAVE_SAC.load(tmp_path / "model")
    later._setup_model()
    assert later.policy_kwargs["activation_fn"] is nn.SiLU


@every
def test_a_policy_that_passes_on_an_activation_of_its_own_keeps_it(algorithm):
    class Tanh(algorithm.policy_aliases["MlpPolicy"]):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, activation_fn=nn.Tanh, **kwargs)

    model = algorithm(Tanh, "Pendulum-v1", **SMALL)
    assert layers_of(model.critic, nn.Tanh) and not layers_of(model.policy, nn.SiLU)
    with pytest.raises((TypeError, KeyError), match="activation_fn"):
        algorithm(Tanh, "Pendulum-v1", **small(activation_fn=nn.ELU))


@every
def test_a_compiled_critic_is_refused(algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1", **SMALL).learn(10)
    model.critic.q_networks[0].compile()
    with pytest.raises(RuntimeError, match=r"torch\.compile"):
        model.train(1, 4)


@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_a_compiled_critic_trains_while_there_are_no_terms():
    model = PAVE_SAC("MlpPolicy", "Pendulum-v1", mpr_coef=0, vfc_coef=0, curv_coef=0, **SMALL).learn(10)
    model.critic.compile(backend="eager")
    model.train(2, 4)
    model.curv_coef = 0.1
    with pytest.raises(RuntimeError, match=r"torch\.compile"):
        model.train(1, 4)


class Lazy(BaseFeaturesExtractor):
    """The critics' have no parameters before their first update."""

    def __init__(self, observation_space):
        super().__init__(observation_space, 5)
        self.layer = nn.LazyLinear(5)

    def forward(self, observations):
        return th.tanh(self.layer(observations))


@every
def test_lazy_layers_train_as_the_hosts(algorithm):
    settings = {**small(features_extractor_class=Lazy, activation_fn=nn.SiLU), "seed": 0}
    host = host_of(algorithm)("MlpPolicy", "Pendulum-v1", **settings).learn(20)
    zero = algorithm("MlpPolicy", "Pendulum-v1", mpr_coef=0, vfc_coef=0, curv_coef=0, **settings).learn(20)
    for parameter, theirs in zip(zero.policy.parameters(), host.policy.parameters(), strict=True):
        th.testing.assert_close(parameter, theirs, rtol=0, atol=0)
    assert algorithm("MlpPolicy", "Pendulum-v1", **settings).learn(20)._n_updates > 0


@every
def test_a_compiled_policy_trains(algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1", **SMALL)
    model.policy = th.compile(model.policy, backend="eager")
    weight = layers_of(model.critic, nn.Linear)[0].weight
    before = weight.clone()
    model.learn(20)
    assert not th.equal(before, weight)


@every
@pytest.mark.parametrize(
    ("poison", "blamed"),
    [("parameter", "the critic diverges"), ("observation", "the critic diverges")],
)
def test_a_term_that_is_not_finite_is_an_error_that_names_it(algorithm, poison, blamed):
    model = algorithm("MlpPolicy", "Pendulum-v1", **SMALL).learn(20)
    if poison == "parameter":
        layers_of(model.critic, nn.Linear)[0].weight.data[0, -1] = np.nan
    else:
        model.replay_buffer.observations[:] = np.nan
    updates = model._n_updates
    with pytest.raises(ValueError, match=rf"mpr_loss is nan at update {updates + 1}; probably {blamed}"):
        model.train(3, 4)


@every
def test_a_reward_that_is_not_finite_is_named_as_the_cause(algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1", **SMALL).learn(20)
    model.replay_buffer.rewards[:] = np.inf
    with pytest.raises(ValueError, match=rf"_loss .* at update {model._n_updates + 2}; probably the TD loss was not finite"):
        model.train(3, 4)


def test_a_reward_that_was_not_finite_in_the_call_before_is_named_as_the_cause():
    model = PAVE_SAC("MlpPolicy", "Pendulum-v1", **SMALL).learn(20)
    model.replay_buffer.rewards[:] = np.inf
    model.train(1, 4)
    with pytest.raises(ValueError, match=rf"_loss .* at update {model._n_updates + 1}; probably the TD loss was not finite"):
        model.train(1, 4)


@every
def test_a_reward_that_is_not_finite_is_named_as_the_cause_in_the_papers_units(algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1", scale_free=False, pave_interval=2, **SMALL).learn(20)
    model.replay_buffer.rewards[:] = np.inf
    with pytest.raises(ValueError, match="probably the TD loss was not finite before it"):
        model.train(5, 4)


@every
def test_the_zoos_parallel_training_is_refused(algorithm):
    callbacks = pytest.importorskip("rl_zoo3.callbacks")
    model = algorithm("MlpPolicy", "Pendulum-v1", **SMALL)
    parallel = callbacks.ParallelTrainCallback()
    for callback in (parallel, [parallel], CallbackList([parallel]), EveryNTimesteps(5, parallel)):
        with pytest.raises(ValueError, match="ParallelTrainCallback"):
            model.learn(10, callback=callback)


def test_callbacks_with_attributes_of_the_same_name_are_left_alone():
    class Users(BaseCallback):
        callbacks = 3

        def __init__(self):
            super().__init__()
            self.callback = self

        def _on_step(self):
            return True

    PAVE_SAC("MlpPolicy", "Pendulum-v1", **SMALL).learn(10, callback=Users())
    PAVE_SAC("MlpPolicy", "Pendulum-v1", **SMALL).learn(10, lambda *_: True)


@every
def test_actions_and_observations_of_half_precision_train(algorithm):
    env = RandomObservationEnv(spaces.Box(-1, 1, (3,), np.float16))
    env.action_space = spaces.Box(-1, 1, (2,), np.float16)
    model = algorithm("MlpPolicy", env, **SMALL).learn(20)
    assert model.logger.name_to_value["train/mpr_loss"] > 0
    zero = algorithm("MlpPolicy", env, mpr_coef=0, vfc_coef=0, curv_coef=0, **SMALL).learn(20)
    assert zero._n_updates == model._n_updates


@every
@pytest.mark.parametrize("compile", [False, True])
def test_critics_may_learn_before_their_actor(algorithm, compile):
    if compile and algorithm is not PAVE_SAC:
        pytest.skip("one is enough")
    model = algorithm("MlpPolicy", "Pendulum-v1", compile=compile, **SMALL)
    model.actor.requires_grad_(False)
    before = [parameter.clone() for parameter in model.actor.parameters()]
    critic = model.critic.q_networks[0][-1].weight.clone()
    model.learn(20)
    assert all(map(th.equal, before, model.actor.parameters()))
    assert not th.equal(critic, model.critic.q_networks[0][-1].weight)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_mpr_alone_without_observations_to_perturb_is_the_host(algorithm):
    def trained(mpr_coef):
        settings = {**SMALL, "batch_size": 8, "seed": 0, "vfc_coef": 0, "curv_coef": 0}
        env = RandomObservationEnv(spaces.Box(0, 9, (3,), np.int32))
        return algorithm("MlpPolicy", env, mpr_coef=mpr_coef, **settings).learn(12)

    with pytest.warns(UserWarning, match="MPR contributes nothing"):
        model = trained(0.5)
    host = trained(0)
    assert all(map(th.equal, model.policy.parameters(), host.policy.parameters()))
    assert model.logger.name_to_value.keys() == host.logger.name_to_value.keys()
