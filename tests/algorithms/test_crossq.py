"""Batch renormalisation under PAVE: which statistics normalise the field, and that it does not move them."""

import shutil

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import CrossQ
from sb3_contrib.common.torch_layers import BatchRenorm1d
from torch import nn

from sb3_pave import PAVE_CrossQ
from sb3_pave.algorithms.execution import Execution
from sb3_pave.fast.critic_loss import mlp_critic_loss
from sb3_pave.fast.eligibility import has_closed_form
from sb3_pave.method.field import gradient_field
from sb3_pave.method.points import FieldInputs
from tests.algorithms.environments import RandomObservationEnv

STATISTICS = ("ra_mean", "ra_var", "steps")
ZERO = {"mpr_coef": 0, "vfc_coef": 0, "curv_coef": 0}
WEIGHTS = {"mpr_coef": 1.0, "vfc_coef": 1.0, "curv_coef": 1.0}


def collected(algorithm, **kwargs):
    """A model with a filled replay buffer that was not updated yet."""
    model = algorithm(
        "MlpPolicy",
        "Pendulum-v1",
        policy_kwargs={"net_arch": [16, 16], "activation_fn": nn.SiLU},
        learning_starts=100,
        policy_delay=1,
        seed=0,
        **kwargs,
    )
    return model.learn(60)


def update(model, times):
    model.set_random_seed(times)
    model.train(times, 32)


def statistics(model):
    state = model.policy.state_dict()
    return {name: value.clone() for name, value in state.items() if name.endswith(STATISTICS)}


@pytest.mark.parametrize("weights", [ZERO, WEIGHTS], ids=["zero", "non-zero"])
def test_running_statistics_move_exactly_as_in_crossq(weights):
    host, ours = collected(CrossQ), collected(PAVE_CrossQ, **weights)
    update(host, 1)
    update(ours, 1)
    before, expected = statistics(collected(CrossQ)), statistics(host)
    for name, value in statistics(ours).items():
        assert th.equal(value, expected[name])
        assert not th.equal(value, before[name])
    # From the second update on they are those of other networks, but they move as often
    update(host, 4)
    update(ours, 4)
    expected = statistics(host)
    for name, value in statistics(ours).items():
        if name.endswith("steps"):
            assert value == expected[name] == 5
    assert weights is ZERO or not th.equal(ours.critic.qf0[1].weight, host.critic.qf0[1].weight)


def test_the_field_is_that_of_the_statistics_that_the_actor_sees(monkeypatch):
    model = collected(PAVE_CrossQ, **WEIGHTS)
    before = model.critic.qf0[0].ra_mean.clone()
    seen = {}

    def recording_terms(critic, *args):
        seen["field"] = critic.qf0[0].ra_mean.clone()
        return mlp_critic_loss(critic, *args)

    def recording_forward(observations, actions):
        seen["actor" if actions.requires_grad else "joint"] = model.critic.qf0[0].ra_mean.clone()
        return forward(observations, actions)

    forward = model.critic.forward
    monkeypatch.setattr("sb3_pave.algorithms.fast_execution.mlp_critic_loss", recording_terms)
    monkeypatch.setattr(model.critic, "forward", recording_forward)
    # A forward pass of its own would cost the critic its closed form
    monkeypatch.setattr("sb3_pave.fast.eligibility.has_hooks", lambda module: False)
    model.train(1, 32)
    assert th.equal(seen["joint"], before)
    assert th.equal(seen["field"], seen["actor"]) and not th.equal(seen["field"], before)


@pytest.mark.parametrize("training", [True, False])
def test_the_field_of_a_sample_does_not_depend_on_the_others(training):
    model = collected(PAVE_CrossQ)
    model.train(20, 32)
    critic = model.critic
    critic.set_training_mode(training)
    batch = model.replay_buffer.sample(8)
    before = statistics(model)
    field = gradient_field(critic, FieldInputs(batch.observations, batch.actions, direction=th.ones_like(batch.actions)))
    assert all(th.equal(value, before[name]) for name, value in statistics(model).items())
    assert all(module.training is training for module in critic.modules() if isinstance(module, BatchRenorm1d))

    critic.set_training_mode(False)
    for row in range(8):
        observation, action = batch.observations[row : row + 1], batch.actions[row : row + 1]

        def q(a, observation=observation):
            return th.cat(critic(observation, a)).squeeze(1)

        jacobian = th.autograd.functional.jacobian(q, action)
        th.testing.assert_close(field.grad[:, row], jacobian.reshape(2, 1))
        for i in range(2):
            hessian = th.autograd.functional.hessian(lambda a, q=q, i=i: q(a)[i], action)
            th.testing.assert_close(field.curvature[i, row], hessian.reshape(()))


def test_the_closed_form_serves_critics_with_and_without_renormalisation():
    assert has_closed_form(PAVE_CrossQ("MlpPolicy", "Pendulum-v1", buffer_size=1).critic)
    without = {"batch_norm": False, "net_arch": [8]}
    assert has_closed_form(PAVE_CrossQ("MlpPolicy", "Pendulum-v1", buffer_size=1, policy_kwargs=without).critic)


@pytest.mark.parametrize("settings", [{}, {"pave_batch_size": 20}, {"pave_interval": 2}, {"compile": True}], ids=str)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # PyTorch's compiler, of parts of itself
def test_it_trains_as_by_the_definition(settings, monkeypatch):
    if "compile" in settings and not any(map(shutil.which, ("g++", "clang++", "cl"))):
        pytest.skip("no C++ compiler")
    ours = collected(PAVE_CrossQ, **WEIGHTS, **settings)
    update(ours, 10)
    expected = collected(PAVE_CrossQ, **WEIGHTS, **{**settings, "compile": False})
    monkeypatch.setattr("sb3_pave.algorithms.mixin.choose_execution", Execution)
    update(expected, 10)
    state = expected.policy.state_dict()
    for name, value in ours.policy.state_dict().items():
        th.testing.assert_close(value, state[name], rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("policy", ["CnnPolicy", "MultiInputPolicy"])
def test_what_crossq_does_not_have_is_refused_as_by_crossq(policy):
    env = RandomObservationEnv(spaces.Dict(vector=spaces.Box(-1, 1, (3,), np.float32)))
    for algorithm in (CrossQ, PAVE_CrossQ):
        with pytest.raises(ValueError, match=f"Policy {policy} unknown"):
            algorithm(policy, env)
    for algorithm in (CrossQ, PAVE_CrossQ):
        with pytest.raises(ValueError, match="MultiInputPolicy"):
            algorithm("MlpPolicy", env)


def test_an_update_that_changes_after_the_warmup_is_not_recorded():
    with pytest.raises(ValueError, match="cuda_graph=True can't record CrossQ's update"):
        PAVE_CrossQ("MlpPolicy", "Pendulum-v1", cuda_graph=True)
