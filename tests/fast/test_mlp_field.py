"""The written-out gradient of the closed form: gradcheck, second use, rows, products."""

import pytest
import torch as th
from torch import nn

from sb3_pave.fast import matmul
from sb3_pave.fast.activations import ACTIVATIONS, derivatives
from sb3_pave.fast.matmul import affine, product
from tests.method.closed_form import closed_form

OBS, ACTION, ROWS, TANGENTS = 4, 2, 7, 3


def network(*widths, activation=nn.SiLU, outputs=1, bias=True):
    th.manual_seed(0)
    layers, width = [], OBS + ACTION
    for next_width in widths:
        layers += [nn.Linear(width, next_width, bias=bias), activation()]
        width = next_width
    return nn.Sequential(*layers, nn.Linear(width, outputs, bias=bias)).double()


def inputs(requires_grad=True):
    th.manual_seed(1)
    shapes = ((ROWS, OBS), (ROWS, ACTION), (TANGENTS, ACTION))
    return [th.randn(*shape, dtype=th.float64).requires_grad_(requires_grad) for shape in shapes]


@pytest.mark.parametrize("rows", [{}, {"n_values": 5, "field_from": 2}, {"n_values": 3}, {"n_values": 7, "field_from": 4}])
@pytest.mark.parametrize(
    "critic",
    [
        network(),
        network(5),
        network(5, 4, 3),
        network(5, 4, outputs=3),
        network(5, 4, activation=nn.Tanh, bias=False),
        network(5, 4, activation=nn.ReLU),
        nn.Sequential(*network(5)[:2], *nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1)).double()),
    ],
    ids=["linear", "shallow", "deep", "quantiles", "no bias", "relu", "mixed"],
)
def test_gradcheck(critic, rows):
    parameters = list(critic.parameters())

    features, *others = inputs(requires_grad=False)

    def evaluate(features, *parameters):
        return closed_form([critic], features, *others, **rows)

    assert th.autograd.gradcheck(evaluate, [features.requires_grad_(), *parameters])


@pytest.mark.parametrize("part", [0, 1, 2])
def test_each_result_has_its_own_gradient_and_the_graph_can_be_used_again(part):
    critic = network(5, 4)
    results = closed_form([critic], *inputs(requires_grad=False))
    weights = [th.randn_like(result) for result in results]
    parameters = list(critic.parameters())

    def gradient(outputs, weights):
        grads = th.autograd.grad(outputs, parameters, weights, retain_graph=True)
        return th.cat([grad.flatten() for grad in grads])

    first = gradient(results[part], weights[part])
    total = gradient(results, weights)
    assert th.equal(gradient(results[part], weights[part]), first) and first.abs().sum() > 0
    th.testing.assert_close(sum(gradient(r, w) for r, w in zip(results, weights, strict=True)), total)


def test_without_a_direction_there_is_no_curvature():
    critic = network(5, 4)
    features, actions, _ = inputs()
    values, gradient, curvature = closed_form([critic], features, actions, None)
    assert curvature is None
    (expected,) = th.autograd.grad(critic(th.cat([features, actions], dim=1)).sum(), actions)
    th.testing.assert_close(gradient[0], expected)
    th.testing.assert_close(values[0], critic(th.cat([features, actions], dim=1)))


def test_an_ensemble_is_its_networks_one_by_one():
    critics = [network(5, 4), network(5, 4)]
    for parameter in critics[1].parameters():
        parameter.data.normal_()
    points = inputs(requires_grad=False)
    together = closed_form(critics, *points, n_values=5, field_from=2)
    for i, critic in enumerate(critics):
        alone = closed_form([critic], *points, n_values=5, field_from=2)
        for ours, own in zip(together, alone, strict=True):
            th.testing.assert_close(ours[i], own[0])
        grads = [
            th.autograd.grad([part.sum() for part in parts], list(critic.parameters()))
            for parts in ([part[i] for part in closed_form(critics, *points, n_values=5, field_from=2)], alone)
        ]
        for ours, own in zip(*grads, strict=True):
            th.testing.assert_close(ours, own)


@pytest.mark.parametrize(
    "activation", [*(a() for a in ACTIVATIONS), nn.GELU("tanh"), nn.Softplus(3, 2), nn.ELU(0.7)], ids=repr
)
def test_derivatives_are_those_of_the_activation(activation):
    z = (th.linspace(-6, 6, 120, dtype=th.float64) + 0.01).reshape(2, 60, 1).requires_grad_()
    every = slice(None)
    with th.no_grad():
        ours = derivatives(activation, z.clone(), (every, slice(10, None)), (every, slice(10, 40)))
    expected = activation(z)
    th.testing.assert_close(ours.value, expected)
    for name, rows in (("first", slice(None)), ("second", slice(10, None)), ("third", slice(10, 40))):
        if expected.requires_grad:
            (expected,) = th.autograd.grad(expected.sum(), z, create_graph=True)
        derivative = getattr(ours, name)
        if derivative is None:
            assert isinstance(activation, nn.ReLU)
            continue
        th.testing.assert_close(derivative, expected[:, rows], rtol=1e-10, atol=1e-10)


@pytest.fixture(params=["oneDNN", "PyTorch"])
def library(request, monkeypatch):
    if request.param == "oneDNN" and matmul._ONEDNN_LINEAR is None:
        pytest.skip("no AVX-512 here")
    monkeypatch.setattr(matmul, "_PREFERS_ONEDNN", request.param == "oneDNN")
    monkeypatch.setattr(matmul, "_FEW", 0)
    return request.param


@pytest.mark.parametrize("shape", [(70, 50, 90), (70, 50, 3), (3, 50, 70), (300, 256, 23), (64, 1, 64), (1, 20, 30)])
def test_products_are_products(shape, library):
    m, k, n = shape
    th.manual_seed(0)
    a, b, bias = th.randn(2, m, k), th.randn(2, k, n), th.randn(2, 1, n)
    expected = a.double() @ b.double()
    wide = th.randn(2, m, k + 5)
    wide[..., 5:] = a
    for left in (a, a.mT.contiguous().mT, wide[..., 5:]):
        for right in (b, b.mT.contiguous().mT):
            th.testing.assert_close(product(left, right).double(), expected, rtol=1e-5, atol=1e-4)
            th.testing.assert_close(affine(left, right.mT, bias).double(), expected + bias, rtol=1e-5, atol=1e-4)
            th.testing.assert_close(affine(left, right.mT, None).double(), expected, rtol=1e-5, atol=1e-4)


def test_onednn_has_the_large_products_alone(library, monkeypatch):
    calls = []
    linear = matmul._ONEDNN_LINEAR
    monkeypatch.setattr(matmul, "_ONEDNN_LINEAR", lambda *inputs: calls.append(inputs) or linear(*inputs))
    product(th.zeros(2, 70, 64), th.zeros(2, 64, 70))
    assert len(calls) == (2 if library == "oneDNN" else 0)  # one a matrix
    product(th.zeros(2, 70, 63), th.zeros(2, 63, 70))
    monkeypatch.setattr(matmul, "_FEW", 70 * 64 * 70 + 1)
    product(th.zeros(2, 70, 64), th.zeros(2, 64, 70))
    assert len(calls) == (2 if library == "oneDNN" else 0)
