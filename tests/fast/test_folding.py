"""The closed form of critics with batch renormalisation: the definition in evaluation mode, for every parameter."""

import numpy as np
import pytest
import torch as th
import torch.nn.functional as F
from gymnasium import spaces
from sb3_contrib.common.torch_layers import BatchRenorm1d
from sb3_contrib.crossq.policies import CrossQCritic
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_pave import PAVE_TD3
from sb3_pave.algorithms.execution import Execution
from sb3_pave.fast.critic_loss import mlp_critic_loss
from sb3_pave.fast.eligibility import has_closed_form, is_mode_free
from sb3_pave.fast.folding import folded_parameters, without_normalization
from sb3_pave.fast.stand_ins import is_mlp_critic
from sb3_pave.method.points import FieldInputs
from sb3_pave.method.terms import Terms, evaluate_terms
from tests.method.closed_form import order_ending_with

BATCH = 6
OBS = spaces.Box(-np.inf, np.inf, (5,), np.float32)
ACTION = spaces.Box(-1, 1, (3,), np.float32)


def make_critic(net_arch=(8, 7), affine=True, **kwargs):
    """In float64, as after some training: with statistics, scales and shifts of its own in each layer."""
    th.manual_seed(0)
    critic = CrossQCritic(OBS, ACTION, list(net_arch), FlattenExtractor(OBS), 5, nn.SiLU, n_critics=2, **kwargs).double()
    for layer in renormalizations(critic):
        layer.ra_mean.normal_()
        layer.ra_var.uniform_(0.2, 3)
        layer.steps += 7
        layer.affine = affine
        nn.init.uniform_(layer.scale, 0.5, 1.5)
        nn.init.normal_(layer.bias)
    return critic


def renormalizations(critic):
    return [layer for layer in critic.modules() if isinstance(layer, BatchRenorm1d)]


@pytest.fixture(autouse=True)
def float64_features(monkeypatch):
    monkeypatch.setattr(BaseModel, "extract_features", lambda self, obs, extractor: extractor(obs))


def make_terms(rows=None):
    th.manual_seed(1)
    obs, noisy, successor = th.randn(3, BATCH, 5).double()
    actions = th.rand(BATCH, 3).double() * 2 - 1
    direction = th.randint(0, 2, (BATCH, 3)).double() * 2 - 1
    inputs = FieldInputs(obs, actions, noisy, successor, direction)
    if rows is not None:
        of_rows = {"noisy_observations": noisy, "next_observations": successor, "direction": direction}
        inputs = inputs._replace(order=order_ending_with(rows, BATCH), **{name: x[rows] for name, x in of_rows.items()})
    return Terms(inputs, (0.3, 0.7, 1.1), 5.0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("rows", [None, th.tensor([4, 1, 3])], ids=["batch", "part"])
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"renorm_warmup_steps": 3},  # its warm-up is over
        {"affine": False},
        {"net_arch": ()},
        {"net_arch": (8, 7, 6), "batch_norm_eps": 0.1},
        {"batch_norm": False},
    ],
    ids=str,
)
def test_terms_and_gradients_are_those_of_the_definition(kwargs, rows, training):
    critic, terms = make_critic(**kwargs), make_terms(rows)
    assert has_closed_form(critic)
    critic.train(training)
    before = {name: value.clone() for name, value in critic.state_dict().items()}
    expected, expected_scalars = evaluate_terms(critic, terms)
    loss, scalars = mlp_critic_loss(critic, terms, None, compile=False)

    th.testing.assert_close(loss.value, expected)
    th.testing.assert_close(scalars, expected_scalars)
    parameters = list(critic.parameters())
    loss.backward(inputs=parameters)
    gradients = th.autograd.grad(expected, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        ours, own = (th.zeros_like(parameter) if g is None else g for g in (parameter.grad, gradient))
        th.testing.assert_close(ours, own, rtol=0, atol=1e-10)
    assert all(th.equal(value, before[name]) for name, value in critic.state_dict().items())
    assert all(layer.training is training for layer in renormalizations(critic))


def test_each_layer_has_its_share_of_the_gradient():
    critic = make_critic()
    mlp_critic_loss(critic, make_terms(), None, compile=False)[0].backward(inputs=list(critic.parameters()))
    # The field does not depend on what is added to the output, nor on it before the last layer
    *layers, last = renormalizations(critic)[:3]
    assert all(layer.scale.grad.norm() > 1e-3 for layer in (*layers, last)) and last.bias.grad.norm() == 0
    assert all(layer.bias.grad.norm() > 1e-3 for layer in layers)


@pytest.mark.parametrize("normalized", [{0, 3, 6, 9}, {0}, {3, 9}])
def test_folded_it_is_the_network_in_evaluation_mode(normalized):
    layers = enumerate(make_critic(net_arch=(8, 7, 6)).eval().qf0)
    network = nn.Sequential(*(layer for i, layer in layers if i in normalized or not isinstance(layer, BatchRenorm1d)))
    x = th.randn(BATCH, 8).double()
    left, parameters = without_normalization(network), folded_parameters(network)
    hidden = x
    for i, layer in enumerate(left):
        hidden = F.linear(hidden, *parameters[i : i + 2]) if isinstance(layer, nn.Linear) else layer(hidden)
    th.testing.assert_close(hidden, network(x))
    plain = nn.Sequential(nn.Linear(2, 3), nn.SiLU(), nn.Linear(3, 1))
    assert without_normalization(plain) is plain
    assert all(ours is own for ours, own in zip(folded_parameters(plain), plain.parameters(), strict=True))


class OwnRenorm(BatchRenorm1d):
    """May compute something else."""


def hooked(width):
    layer = BatchRenorm1d(width)
    layer.register_forward_hook(lambda *_: None)
    return layer


@pytest.mark.parametrize("normalization", [OwnRenorm, hooked, nn.BatchNorm1d, nn.LayerNorm])
def test_other_normalisation_has_no_closed_form(normalization):
    critic = make_critic()
    critic.qf1[2 + 1] = normalization(8)
    assert not has_closed_form(critic)


def test_normalisation_that_is_not_before_a_linear_layer_has_no_closed_form():
    critic = make_critic()
    for network in critic.q_networks:
        network.insert(2, BatchRenorm1d(8))
    assert not has_closed_form(critic)


def test_the_td_loss_of_normalised_critics_has_a_pass_of_its_own(monkeypatch):
    """Whatever host has them: in training they normalise by the batch."""
    monkeypatch.undo()

    def trained(execution=None):
        # Biases before a normalisation have no gradient but rounding, which Adam divides by itself: one Adam for both
        policy_kwargs = {"net_arch": [16], "optimizer_kwargs": {"foreach": False}}
        settings = dict(policy_kwargs=policy_kwargs, learning_starts=40, batch_size=32, buffer_size=100, seed=0)
        model = PAVE_TD3("MlpPolicy", "Pendulum-v1", **settings).learn(40)
        for critic in (model.critic, model.critic_target):
            for network in critic.q_networks:
                network.insert(2, BatchRenorm1d(16))
        assert has_closed_form(model.critic) and not is_mode_free(model.critic) and not is_mlp_critic(model.critic)
        if execution is not None:
            monkeypatch.setattr("sb3_pave.algorithms.mixin.choose_execution", execution)
        th.manual_seed(0)
        np.random.seed(0)
        model.train(5, batch_size=32)
        monkeypatch.undo()
        return model.policy.state_dict()

    th.testing.assert_close(trained(), trained(Execution), rtol=0, atol=1e-5)
