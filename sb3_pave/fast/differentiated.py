"""Losses that come with their gradient, and steps down them; equals ``loss.backward()`` and ``optimizer.step()``."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch as th

from sb3_pave.fast.compiled import compiled


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
        wanted = {id(tensor) for tensor in inputs}
        onward = []
        for tensor, gradient in zip(self.tensors, self.gradients, strict=True):
            if not _is_plain_leaf(tensor):
                onward.append((tensor, gradient))
            elif id(tensor) in wanted:
                if gradient.stride() != tensor.stride():
                    # Optimizers may go through both as they lie in memory
                    gradient = th.empty_like(tensor).copy_(gradient)
                tensor.grad = gradient if tensor.grad is None else tensor.grad + gradient
        if onward:
            tensors, gradients = zip(*onward, strict=True)
            th.autograd.backward(tensors, gradients, inputs=inputs)

    def detach(self) -> th.Tensor:
        """The loss without its gradient."""
        return self.value


# What ``descend`` can take a step down
Loss = th.Tensor | Differentiated


def _is_plain_leaf(tensor: th.Tensor) -> bool:
    # Autograd would do no more than hand it the gradient
    return tensor.is_leaf and not tensor._backward_hooks and not getattr(tensor, "_post_accumulate_grad_hooks", None)


def compiled_loss(loss: Callable[..., tuple[th.Tensor, Any]], actor: Any, *others: Any) -> tuple[Differentiated, Any]:
    """
    A loss and its gradient with respect to an actor's parameters through ``torch.compile``.

    :param loss: of actor and others, a scalar and whatever else is wanted
    :param actor: a stand-in, which has ``parameters``
    :param others: further arguments
    """
    with th.no_grad():
        gradients, (value, more) = compiled(_gradient_and_value)(loss, actor, *others)
    pairs = [pair for pair in zip(actor.parameters, gradients, strict=True) if pair[0] is not None]
    return Differentiated(value, *zip(*pairs, strict=True)), more


def _gradient_and_value(loss: Callable[..., Any], actor: Any, *others: Any) -> Any:
    def of(parameters: Any) -> Any:
        return loss(actor._replace(parameters=parameters), *others)

    return th.func.grad_and_value(of, has_aux=True)(actor.parameters)


def descend(optimizer: th.optim.Optimizer, *losses: Loss) -> None:
    """
    One step of the optimizer down the sum of the losses; only the optimizer's own parameters get gradients.

    :param optimizer: the optimizer of a network
    :param losses: scalars
    """
    parameters = parameters_of(optimizer)
    for parameter in parameters:
        parameter.grad = None
    for loss in losses:
        loss.backward(inputs=parameters)
    optimizer.step()


def parameters_of(optimizer: th.optim.Optimizer) -> list[th.Tensor]:
    """What the optimizer moves."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"] if parameter.requires_grad]
