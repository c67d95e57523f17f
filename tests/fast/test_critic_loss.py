"""The loss of an MLP critic comes with its gradient: that of the definition, for every parameter that the loss depends on."""

import numpy as np
import pytest
import torch as th
import torch.nn.functional as F
from gymnasium import spaces
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_pave.fast.critic_loss import TdError, mlp_critic_loss
from sb3_pave.fast.differentiated import Differentiated
from sb3_pave.method.field import gradient_field
from sb3_pave.method.losses import pave_losses
from sb3_pave.method.points import FieldInputs
from sb3_pave.method.terms import Terms
from tests.algorithms.scenarios import DroppingExtractor
from tests.method.closed_form import order_ending_with

BATCH = 6
OBS = spaces.Box(-np.inf, np.inf, (5,), np.float32)
ACTION = spaces.Box(-1, 1, (3,), np.float32)
COEFS, DELTA = (0.3, 0.7, 1.1), 5.0


@pytest.fixture(params=[False, True], ids=["own extractor", "shared extractor"])
def critic(request, monkeypatch):
    """With features that have parameters, in float64."""
    th.manual_seed(0)
    monkeypatch.setattr(ContinuousCritic, "extract_features", lambda self, obs, extractor: extractor(obs))
    shared = {"share_features_extractor": request.param}
    return ContinuousCritic(OBS, ACTION, [8, 7], DroppingExtractor(OBS), 8, nn.SiLU, n_critics=3, **shared).double().eval()


@pytest.fixture
def inputs():
    th.manual_seed(1)
    obs, noisy, successor = th.randn(3, BATCH, 5).double()
    actions = th.rand(BATCH, 3).double() * 2 - 1
    return FieldInputs(obs, actions, noisy, successor, th.randint(0, 2, (BATCH, 3)).double() * 2 - 1)


def mean_squared_errors(current, target):
    return sum(F.mse_loss(current_q, target) for current_q in current)


def definition(critic, inputs, target, has_successor):
    mpr, vfc, curv = pave_losses(gradient_field(critic, inputs), DELTA, has_successor)
    terms = sum(coef * loss for coef, loss in zip(COEFS, (mpr, vfc, curv), strict=True) if loss is not None)
    return terms if target is None else terms + mean_squared_errors(critic(inputs.observations, inputs.actions), target)


@pytest.mark.parametrize("rows", [None, [4, 1, 3]])
@pytest.mark.parametrize("with_target", [True, False])
@pytest.mark.parametrize("without", [(), ("direction",), ("noisy_observations",), ("next_observations", "direction")])
def test_it_is_the_gradient_of_the_definition(critic, inputs, rows, with_target, without):
    inputs = inputs._replace(**dict.fromkeys(without))
    has_successor = th.ones(BATCH).double()
    has_successor[3] = 0
    if rows is not None:
        rows = th.tensor(rows)
        of_rows = {name: getattr(inputs, name) for name in ("noisy_observations", "next_observations", "direction")}
        inputs = inputs._replace(
            order=order_ending_with(rows, BATCH), **{name: x if x is None else x[rows] for name, x in of_rows.items()}
        )
        has_successor = has_successor[rows]
    target = th.randn(BATCH, 1).double() if with_target else None
    td = None if target is None else TdError(th.unbind, mean_squared_errors, target)
    loss, scalars = mlp_critic_loss(critic, Terms(inputs, COEFS, DELTA, has_successor), td, compile=False)

    expected = definition(critic, inputs, target, has_successor)
    th.testing.assert_close(loss.value, expected)
    assert ("td_loss" in scalars) is with_target and ("mpr_loss" in scalars) is ("noisy_observations" not in without)
    parameters = list(critic.parameters())
    loss.backward(inputs=parameters)
    gradients = th.autograd.grad(expected, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        ours, own = (th.zeros_like(parameter) if g is None else g for g in (parameter.grad, gradient))
        th.testing.assert_close(ours, own, rtol=0, atol=1e-10)
    # A shared extractor learns from the actor alone
    assert (critic.features_extractor.layers[0].weight.grad is None) is critic.share_features_extractor


@pytest.mark.parametrize(("extractor", "share"), [(FlattenExtractor, 0), (DroppingExtractor, 0.1)])
def test_autocast_is_for_the_features_alone(inputs, extractor, share, monkeypatch):
    monkeypatch.setattr(ContinuousCritic, "extract_features", lambda self, obs, extractor: extractor(obs))
    th.manual_seed(0)
    features = extractor(OBS)
    critic = ContinuousCritic(OBS, ACTION, [8, 7], features, features.features_dim, nn.SiLU, share_features_extractor=False)
    terms = Terms(type(inputs)(*(value.float() if th.is_tensor(value) else value for value in inputs)), COEFS, DELTA)
    td = TdError(th.unbind, mean_squared_errors, th.randn(BATCH, 1))

    def gradients():
        critic.zero_grad()
        mlp_critic_loss(critic.eval(), terms, td, compile=False)[0].backward(inputs=list(critic.parameters()))
        return th.cat([parameter.grad.flatten() for parameter in critic.parameters()])

    expected = gradients()
    with th.autocast("cpu", th.bfloat16):
        th.testing.assert_close(gradients(), expected, rtol=0, atol=share * float(expected.abs().max()))


def test_a_gradient_is_handed_to_the_leaves_that_ask_for_it():
    first, second = nn.Linear(2, 3, bias=False), nn.Linear(3, 1, bias=False)

    def loss():
        gradients = (th.ones(3, 2), th.full((1, 3), 5.0))
        return Differentiated(th.tensor(1.0), (first.weight * 2, second.weight), gradients)

    loss().backward(inputs=[first.weight])
    assert th.equal(first.weight.grad, th.full((3, 2), 2.0)) and second.weight.grad is None
    loss().backward(inputs=[first.weight, second.weight])
    assert th.equal(first.weight.grad, th.full((3, 2), 4.0)) and th.equal(second.weight.grad, th.full((1, 3), 5.0))
    assert loss().detach() == 1.0


def test_a_gradient_lies_in_memory_as_its_parameter_does():
    weight = nn.Parameter(th.zeros(3, 2))
    gradient = th.arange(6.0).reshape(2, 3).T
    Differentiated(th.tensor(0.0), (weight,), (gradient,)).backward(inputs=[weight])
    assert th.equal(weight.grad, gradient) and weight.grad.stride() == weight.stride() != gradient.stride()


def test_hooks_of_a_parameter_see_its_gradient():
    weight = nn.Parameter(th.zeros(2))
    weight.register_hook(lambda gradient: 3 * gradient)
    Differentiated(th.tensor(0.0), (weight,), (th.ones(2),)).backward(inputs=[weight])
    assert th.equal(weight.grad, th.full((2,), 3.0))
