"""Multilayer perceptrons of one kind as one network of stacked matrices, so that each operation serves them all."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch as th
from torch import nn

from sb3_pave.activations import ACTIVATIONS

# Weight and bias (or None) of each linear layer of one network, in their order
Parameters = tuple[Any, ...]


def is_mlp(network: nn.Module) -> bool:
    """
    Whether a network is exactly Linear, activation, Linear, ..., Linear, with activations that have a closed form, and
    without hooks.

    :param network: one critic of an ensemble, taking ``[features, actions]``, or an actor's
    """
    # Exact types: a subclass or a parametrisation (spectral norm, say) may compute something else
    if type(network) is not nn.Sequential or len(network) % 2 == 0:
        return False
    layers = list(iter(network))
    linear = all(type(layer) is nn.Linear for layer in layers[::2])
    smooth = all(type(layer) in ACTIVATIONS for layer in layers[1::2])
    return linear and smooth and not any(map(has_hooks, [network, *layers]))


def is_ensemble(networks: Sequence[nn.Module]) -> bool:
    """
    Whether each network is an MLP (``is_mlp``), and they differ in the values of their parameters alone.

    :param networks: the critics of an ensemble
    """
    return all(map(is_mlp, networks)) and len({_kind(network) for network in networks}) == 1


def has_hooks(module: nn.Module) -> bool:
    """Whether calling the module does something else beside its ``forward``."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks)


def _kind(network: nn.Module) -> tuple[Any, ...]:
    # An activation's settings are in its representation
    layers = list(network.children())
    return *(_shape(linear) for linear in layers[::2]), *map(repr, layers[1::2])


def _shape(linear: Any) -> tuple[int, int, bool]:
    return linear.in_features, linear.out_features, linear.bias is None


def parameters_of_mlp(network: Any) -> Parameters:
    """
    :param network: the modules of a network for which ``is_mlp`` holds, perhaps with an activation after the last layer
    """
    return tuple(parameter for linear in list(network)[::2] for parameter in (linear.weight, linear.bias))


def activations_of_mlp(network: Any) -> tuple[nn.Module, ...]:
    """
    :param network: likewise
    """
    return tuple(network)[1::2]


class Ensemble(NamedTuple):
    """
    ``n`` networks, a function of inputs of shape (rows, inputs) to outputs of shape (n, rows, outputs).

    :param weights: of each layer, shape (n, outputs, inputs)
    :param biases: of each layer, shape (n, 1, outputs), or None where the layers have none
    :param activations: ``φ`` of each hidden layer
    """

    weights: tuple[th.Tensor, ...]
    biases: tuple[Any, ...]
    activations: tuple[nn.Module, ...]

    def __call__(self, inputs: th.Tensor) -> th.Tensor:
        hidden = inputs.expand(len(self.weights[0]), -1, -1)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = th.bmm(hidden, weight.mT) if bias is None else th.baddbmm(bias, hidden, weight.mT)
            if i < len(self.activations):
                hidden = self.activations[i](hidden)
        return hidden


def ensemble(networks: Sequence[Parameters], activations: tuple[nn.Module, ...]) -> Ensemble:
    """
    Stack the networks' parameters, with their graph.

    :param networks: parameters of each network, of the same shapes
    :param activations: of their hidden layers
    """
    stacks: list[Any] = [None if layer[0] is None else th.stack(layer) for layer in zip(*networks, strict=True)]
    biases = [None if bias is None else bias.unsqueeze(dim=1) for bias in stacks[1::2]]
    return Ensemble(tuple(stacks[::2]), tuple(biases), activations)
