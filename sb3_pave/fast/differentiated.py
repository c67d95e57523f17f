"""Losses that come with their gradient, and steps down them; equals ``loss.backward()`` and ``optimizer.step()``."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch as th

from sb3_pave.fast.compiled import compiled
from sb3_pave.method.batches import leaves, rebuilt


class Differentiated(NamedTuple):
    """
    A loss and its gradient, computed in one go; takes part in training as a tensor with a graph does.

    :param value: the loss
    :param tensors: what it was differentiated with respect to
    :param gradients: its gradients, of their shapes
    """

    value: th.Tensor
    tensors: tuple[th.Tensor, ...]
    gradients: tuple[th.Tensor, ...]

    def backward(self, inputs: Sequence[th.Tensor]) -> None:
        """
        Accumulate the gradient, as ``Tensor.backward`` does.

        :param inputs: the leaves that get it
        """
        backward([self], inputs)

    def detach(self) -> th.Tensor:
        """The loss without its gradient."""
        return self.value


# What ``descend`` can take a step down
Loss = th.Tensor | Differentiated


def backward(losses: Sequence[Loss], inputs: Sequence[th.Tensor]) -> None:
    """
    Accumulate the gradient of the sum of losses in one pass, so that hooks of gradients see that of the sum.

    :param losses: scalars
    :param inputs: the leaves that get it
    """
    wanted = {id(tensor) for tensor in inputs}
    roots: list[th.Tensor] = []
    gradients: list[th.Tensor | None] = []
    for loss in losses:
        if not isinstance(loss, Differentiated):
            roots.append(loss)
            gradients.append(None)
            continue
        for tensor, gradient in zip(loss.tensors, loss.gradients, strict=True):
            if not _is_plain_leaf(tensor):
                roots.append(tensor)
                gradients.append(gradient)
            elif id(tensor) in wanted:
                _accumulate(tensor, gradient)
    if roots:
        _backward(roots, gradients, inputs)


def _accumulate(tensor: th.Tensor, gradient: th.Tensor) -> None:
    if gradient.stride() != tensor.stride():
        # Optimizers may go through both as they lie in memory
        gradient = th.empty_like(tensor).copy_(gradient)
    tensor.grad = gradient if tensor.grad is None else tensor.grad + gradient


def _backward(tensors: Sequence[th.Tensor], gradients: Sequence[th.Tensor | None], inputs: Sequence[th.Tensor]) -> None:
    """
    What ``th.autograd.backward`` does, but where leaves have no hooks that only it runs: then no node that accumulates
    gradients takes part. Each such node belongs to the stream that it was made on, and a recording is made on another.

    :param tensors: with graphs
    :param gradients: with respect to these; None for scalars
    :param inputs: the leaves that get gradients
    """
    if not all(map(_is_plain_leaf, inputs)):
        th.autograd.backward(tensors, gradients, inputs=inputs)
        return
    seen = set()
    for tensor, gradient in zip(inputs, th.autograd.grad(tensors, inputs, gradients, allow_unused=True), strict=True):
        if gradient is not None:
            # Two leaves that are added have one gradient, which nobody may then change in place
            _accumulate(tensor, gradient.clone() if id(gradient) in seen else gradient)
            seen.add(id(gradient))


def _is_plain_leaf(tensor: th.Tensor) -> bool:
    # Autograd would do no more than hand it the gradient
    return tensor.is_leaf and not tensor._backward_hooks and not getattr(tensor, "_post_accumulate_grad_hooks", None)


def compiled_loss(loss: Callable[..., tuple[th.Tensor, Any]], network: Any, *others: Any) -> tuple[Differentiated, Any]:
    """
    A loss and its gradient with respect to a network's parameters through ``torch.compile``.

    :param loss: of network and others, a scalar and whatever else is wanted
    :param network: a stand-in, whose ``parameters`` are tensors in tuples
    :param others: further arguments
    """
    with th.no_grad():
        gradients, (value, more) = compiled(_gradient_and_value)(loss, network, *others)
    return Differentiated(value, tuple(leaves(network.parameters)), tuple(gradients)), more


def _gradient_and_value(loss: Callable[..., Any], network: Any, *others: Any) -> Any:
    def of(tensors: list[th.Tensor]) -> Any:
        return loss(network._replace(parameters=rebuilt(network.parameters, iter(tensors))), *others)

    # Layers without biases have a None, which is not to be differentiated
    return th.func.grad_and_value(of, has_aux=True)(leaves(network.parameters))


def descend(optimizer: th.optim.Optimizer, *losses: Loss) -> None:
    """
    One step of the optimizer down the sum of the losses; only the optimizer's own parameters get gradients.

    :param optimizer: the optimizer of a network
    :param losses: scalars
    """
    _zero_grad(optimizer)
    parameters = parameters_of(optimizer)
    if parameters:
        backward(losses, parameters)
    optimizer.step()


def _zero_grad(optimizer: th.optim.Optimizer) -> None:
    if type(optimizer).zero_grad is not th.optim.Optimizer.zero_grad or "zero_grad" in vars(optimizer):
        # May keep them, to accumulate gradients over several updates
        optimizer.zero_grad()
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            # Also of one that is frozen by now: optimizers step whatever has a gradient
            parameter.grad = None


def parameters_of(optimizer: th.optim.Optimizer) -> list[th.Tensor]:
    """What the optimizer moves."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"] if parameter.requires_grad]
