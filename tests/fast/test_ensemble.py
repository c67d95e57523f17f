"""Networks that lie stacked in memory are read as one, without a copy."""

import copy

import pytest
import torch as th
from torch import nn

from sb3_pave.fast.ensemble import (
    activations_of_mlp,
    ensemble,
    ensemble_in_memory,
    lay_stacked,
    mlp,
    parameters_of_mlp,
    stacked_mlps,
)


def networks(bias=True, n=3):
    return [nn.Sequential(nn.Linear(4, 6, bias=bias), nn.SiLU(), nn.Linear(6, 1, bias=bias)) for _ in range(n)]


@pytest.mark.parametrize("bias", [True, False])
def test_laid_stacked_they_keep_their_values_and_are_read_as_they_lie(bias):
    own = networks(bias)
    before, inputs = [copy.deepcopy(network) for network in own], th.randn(5, 4)
    parameters, activations = tuple(map(parameters_of_mlp, own)), activations_of_mlp(own[0])
    assert ensemble_in_memory(parameters, activations) is None
    lay_stacked(own)
    in_memory, stacked = ensemble_in_memory(parameters, activations), ensemble(parameters, activations)
    for ours, theirs in zip((*in_memory.weights, *in_memory.biases), (*stacked.weights, *stacked.biases), strict=True):
        assert ours is theirs is None or th.equal(ours, theirs)
    for network, other in zip(own, before, strict=True):
        assert all(map(th.equal, network.parameters(), other.parameters()))
    expected = th.stack([mlp(network, activations, inputs) for network in parameters])
    th.testing.assert_close(stacked_mlps(in_memory, inputs), expected)
    # Steps of an optimizer are seen at once
    with th.no_grad():
        own[2][2].weight.add_(1)
    assert th.equal(in_memory.weights[1][2], own[2][2].weight)


def test_laying_them_stacked_again_moves_nothing():
    own = networks()
    lay_stacked(own)
    addresses = [parameter.data_ptr() for network in own for parameter in network.parameters()]
    lay_stacked(own)
    assert addresses == [parameter.data_ptr() for network in own for parameter in network.parameters()]


def move(own):
    own[1][0].weight.data = own[1][0].weight.data.clone()


def transpose(own):
    own[1][0].weight.data = own[1][0].weight.data.view(4, 6).T


def flatten(own):
    """Into one tensor, network by network."""
    parameters = [parameter for network in own for parameter in network.parameters()]
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(parameters).detach(), parameters)


@pytest.mark.parametrize("change", [move, transpose, flatten, list.reverse])
def test_parameters_that_lie_otherwise_are_noticed(change):
    own = networks()
    lay_stacked(own)
    change(own)
    parameters, activations = tuple(map(parameters_of_mlp, own)), activations_of_mlp(own[0])
    assert ensemble_in_memory(parameters, activations) is None
    before = [parameter.detach().clone() for network in own for parameter in network.parameters()]
    lay_stacked(own)
    in_memory = ensemble_in_memory(parameters, activations)
    for network, weight in zip(own, in_memory.weights[0], strict=True):
        assert th.equal(network[0].weight, weight)
    assert all(map(th.equal, (parameter for network in own for parameter in network.parameters()), before))


def test_saved_and_copied_they_are_parameters_like_others(tmp_path):
    own = nn.ModuleList(networks())
    lay_stacked(own)
    th.save(own.state_dict(), tmp_path / "state")
    other = nn.ModuleList(networks())
    other.load_state_dict(th.load(tmp_path / "state", weights_only=True))
    copied = copy.deepcopy(own)
    for parameter, loaded, again in zip(own.parameters(), other.parameters(), copied.parameters(), strict=True):
        assert th.equal(parameter, loaded) and th.equal(parameter, again)
        assert parameter.data_ptr() != again.data_ptr()
