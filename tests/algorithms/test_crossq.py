"""Batch renormalisation under PAVE: which statistics normalise the field, and that it does not move them."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import CrossQ
from sb3_contrib.common.torch_layers import BatchRenorm1d
from torch import nn

import sb3_pave.method.terms
from sb3_pave import PAVE_CrossQ
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

    def recording_field(critic, inputs):
        field = gradient_field(critic, inputs)
        seen["field"] = critic.qf0[0].ra_mean.clone()
        del seen["actor"]  # so far it was the field's own pass
        return field

    def recording_forward(observations, actions):
        seen["actor" if actions.requires_grad else "joint"] = model.critic.qf0[0].ra_mean.clone()
        return forward(observations, actions)

    forward = model.critic.forward
    monkeypatch.setattr(sb3_pave.method.terms, "gradient_field", recording_field)
    monkeypatch.setattr(model.critic, "forward", recording_forward)
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


def test_the_closed_form_serves_critics_without_renormalisation_only():
    assert not has_closed_form(PAVE_CrossQ("MlpPolicy", "Pendulum-v1", buffer_size=1).critic)
    without = {"batch_norm": False, "net_arch": [8]}
    assert has_closed_form(PAVE_CrossQ("MlpPolicy", "Pendulum-v1", buffer_size=1, policy_kwargs=without).critic)


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
