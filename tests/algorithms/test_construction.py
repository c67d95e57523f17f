"""Bad input fails at construction, with what to do; ordinary use warns of nothing."""

import warnings

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import CallbackList, EveryNTimesteps
from stable_baselines3.common.envs import BitFlippingEnv, IdentityEnv
from torch import nn

from sb3_pave import PAVE_CrossQ
from tests.algorithms.environments import RandomObservationEnv
from tests.algorithms.scenarios import ALGORITHMS, layers_of

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


@every
def test_discrete_observations_are_refused_while_mpr_would_perturb_them(algorithm):
    env = RandomObservationEnv(spaces.Discrete(4))
    with pytest.raises(ValueError, match="mpr_coef=0"):
        algorithm("MlpPolicy", env)
    if algorithm is not PAVE_CrossQ:  # CrossQ has no policy for Dict observations
        with pytest.raises(ValueError, match="mpr_coef=0"):
            algorithm("MultiInputPolicy", BitFlippingEnv(continuous=True))
    algorithm("MlpPolicy", env, mpr_coef=0, **SMALL).learn(10)


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


@every
def test_silu_is_put_into_a_copy_of_the_users_arguments(algorithm):
    given = {"net_arch": [8]}
    model = algorithm("MlpPolicy", "Pendulum-v1", policy_kwargs=given)
    assert given == {"net_arch": [8]}
    assert layers_of(model.critic, nn.SiLU) and layers_of(model.actor, nn.SiLU) and not layers_of(model.policy, nn.ReLU)
    tanh = algorithm("MlpPolicy", "Pendulum-v1", **small(activation_fn=nn.Tanh))
    assert layers_of(tanh.critic, nn.Tanh) and not layers_of(tanh.policy, nn.SiLU)


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
    updates = model._n_updates
    with pytest.raises(ValueError, match=rf"at update {updates + 2}; probably the TD loss was not finite before it"):
        model.train(3, 4)


@every
def test_the_zoos_parallel_training_is_refused(algorithm):
    callbacks = pytest.importorskip("rl_zoo3.callbacks")
    model = algorithm("MlpPolicy", "Pendulum-v1", **SMALL)
    parallel = callbacks.ParallelTrainCallback()
    for callback in (parallel, [parallel], CallbackList([parallel]), EveryNTimesteps(5, parallel)):
        with pytest.raises(ValueError, match="ParallelTrainCallback"):
            model.learn(10, callback=callback)
