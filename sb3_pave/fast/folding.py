"""Batch renormalisation folded into the linear layer after it; equals calling the network in evaluation mode."""

from typing import Any

import torch as th
import torch.nn.functional as F
from torch import nn

from sb3_pave.fast.ensemble import Parameters, has_hooks


def without_normalization(network: nn.Module) -> nn.Module:
    """
    The layers that are left when normalisation is folded; the network itself where there is nothing to fold.

    :param network: one critic of an ensemble
    """
    if type(network) is not nn.Sequential or has_hooks(network) or not any(map(_normalizes, network)):
        return network
    layers = [*network, None]
    before_a_linear = [type(following) is nn.Linear for following in layers[1:]]
    return nn.Sequential(
        *(layer for layer, folds in zip(network, before_a_linear, strict=True) if not (folds and _normalizes(layer)))
    )


def folded_parameters(network: Any) -> Parameters:
    """
    What ``parameters_of_mlp`` returns of the MLP that equals the network in evaluation mode, with the graph to the network's
    own parameters.

    :param network: one for which ``is_mlp(without_normalization(network))`` holds
    """
    parameters: list[Any] = []
    normalization = None
    for layer in network:
        if _normalizes(layer):
            normalization = layer
        elif type(layer) is nn.Linear:
            parameters += (layer.weight, layer.bias) if normalization is None else _folded(normalization, layer)
            normalization = None
    return tuple(parameters)


def _folded(normalization: Any, linear: nn.Linear) -> tuple[th.Tensor, th.Tensor]:
    """``W (g ∘ x + c) + b`` as ``(W diag(g)) x + (b + W c)``"""
    slope = (normalization.ra_var + normalization.eps).rsqrt()
    if normalization.affine:
        slope = normalization.scale * slope
    offset = -slope * normalization.ra_mean
    if normalization.affine:
        offset = offset + normalization.bias
    return linear.weight * slope, F.linear(offset, linear.weight, linear.bias)


def _normalizes(layer: nn.Module | None) -> bool:
    # By its exact type, as all layers are; contrib need not be installed
    kind = type(layer)
    known = kind.__module__ == "sb3_contrib.common.torch_layers" and kind.__name__ == "BatchRenorm1d"
    return known and layer is not None and not has_hooks(layer)
