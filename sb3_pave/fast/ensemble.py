"""Multilayer perceptrons by their parameters, one or several stacked; equals calling the ``nn.Sequential`` of each."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch as th
import torch.nn.functional as F
from torch import nn

from sb3_pave.fast.activations import ACTIVATIONS
from sb3_pave.fast.matmul import stacked
from sb3_pave.fast.watch import own_methods

# Weight and bias (or None) of each linear layer of one network, in their order
Parameters = tuple[Any, ...]


def is_mlp(network: nn.Module) -> bool:
    """
    Whether a network is exactly Linear, activation, Linear, ..., Linear, with activations that have a closed form, and
    without hooks.

    :param network: one critic of an ensemble, taking ``[features, actions]``, or an actor's
    """
    return type(network) is nn.Sequential and not has_hooks(network) and is_mlp_of(list(network))


def is_mlp_of(layers: Sequence[nn.Module]) -> bool:
    """
    Whether these layers, one after the other, are those of an MLP, see ``is_mlp``.

    :param layers: the layers
    """
    # Exact types: a subclass or a parametrisation (spectral norm, say) may compute something else
    linear = len(layers) % 2 == 1 and all(type(layer) is nn.Linear for layer in layers[::2])
    return linear and all(type(layer) in ACTIVATIONS for layer in layers[1::2]) and not any(map(has_hooks, layers))


def is_ensemble(networks: Sequence[nn.Module]) -> bool:
    """
    Whether each network is an MLP (``is_mlp``), and they differ in the values of their parameters alone.

    :param networks: the critics of an ensemble
    """
    return all(map(is_mlp, networks)) and len({_kind(network) for network in networks}) == 1


def has_hooks(module: nn.Module) -> bool:
    """Whether calling the module, or one of its methods, does something else than its class says."""
    hooks = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return bool(hooks or own_methods(module))


def _kind(network: nn.Module) -> tuple[Any, ...]:
    linears, activations = list(network.children())[::2], list(network.children())[1::2]
    shapes = ((linear.weight.shape, linear.bias is None) for linear in linears)
    # Their settings, if they have any, are in their representation
    return *shapes, *((type(activation), activation.extra_repr()) for activation in activations)


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


def mlp(parameters: Parameters, activations: tuple[nn.Module, ...], inputs: th.Tensor) -> th.Tensor:
    """
    The outputs of a network, shape (rows, outputs).

    :param parameters: of the network
    :param activations: of its hidden layers
    :param inputs: shape (rows, inputs)
    """
    hidden = F.linear(inputs, *parameters[:2])
    for i, activation in enumerate(activations):
        hidden = F.linear(activation(hidden), *parameters[2 * i + 2 : 2 * i + 4])
    return hidden


class Ensemble(NamedTuple):
    """
    ``n`` networks as one of stacked matrices.

    :param weights: of each layer, shape (n, outputs, inputs)
    :param biases: of each layer, shape (n, 1, outputs), or None where the layers have none
    :param activations: ``φ`` of each hidden layer
    """

    weights: tuple[th.Tensor, ...]
    biases: tuple[Any, ...]
    activations: tuple[nn.Module, ...]


def ensemble(networks: Sequence[Parameters], activations: tuple[nn.Module, ...]) -> Ensemble:
    """
    Stack the networks' parameters, with their graph.

    :param networks: parameters of each network, of the same shapes
    :param activations: of their hidden layers
    """
    stacks: list[Any] = [None if layer[0] is None else stacked(layer) for layer in zip(*networks, strict=True)]
    biases = [None if bias is None else bias.unsqueeze(dim=1) for bias in stacks[1::2]]
    return Ensemble(tuple(stacks[::2]), tuple(biases), activations)


def lay_stacked(networks: Sequence[nn.Module]) -> None:
    """
    Move the parameters of networks to where ``ensemble_in_memory`` finds them; their values stay.

    :param networks: for which ``is_ensemble`` holds
    """
    for layer in zip(*map(parameters_of_mlp, networks), strict=True):
        if layer[0] is not None and not _lie_stacked(layer):
            for parameter, place in zip(layer, th.stack([parameter.detach() for parameter in layer]), strict=True):
                parameter.data = place


def ensemble_in_memory(networks: Sequence[Parameters], activations: tuple[nn.Module, ...]) -> Ensemble | None:
    """
    What ``ensemble`` returns, without a graph and without a copy; None where the networks do not lie like that.

    :param networks: parameters of each network, of the same shapes
    :param activations: of their hidden layers
    """
    stacks: list[Any] = []
    for layer in zip(*networks, strict=True):
        first = layer[0]
        if first is not None and not _lie_stacked(layer):
            return None
        strided = None if first is None else first.detach().as_strided((len(layer), *first.shape), _strides(first))
        stacks.append(strided)
    biases = [None if bias is None else bias.unsqueeze(dim=1) for bias in stacks[1::2]]
    return Ensemble(tuple(stacks[::2]), tuple(biases), activations)


def _lie_stacked(layer: Sequence[th.Tensor]) -> bool:
    first = layer[0]
    memory, size = first.untyped_storage().data_ptr(), first.numel() * first.element_size()
    return all(
        parameter.is_contiguous()
        and parameter.untyped_storage().data_ptr() == memory
        and parameter.data_ptr() == first.data_ptr() + i * size
        for i, parameter in enumerate(layer)
    )


def _strides(first: th.Tensor) -> tuple[int, ...]:
    return first.numel(), *first.stride()


def stacked_mlps(networks: Ensemble, inputs: th.Tensor) -> th.Tensor:
    """
    The outputs of all networks, shape (n, rows, outputs).

    :param networks: the networks
    :param inputs: of each of them, shape (rows, inputs)
    """
    hidden = inputs.expand(len(networks.weights[0]), -1, -1)
    for i, (weight, bias) in enumerate(zip(networks.weights, networks.biases, strict=True)):
        hidden = th.bmm(hidden, weight.mT) if bias is None else th.baddbmm(bias, hidden, weight.mT)
        if i < len(networks.activations):
            hidden = networks.activations[i](hidden)
    return hidden
