"""An object's tensors without the graphs that made them; each equals what it was."""

import copy
from typing import Any

import torch as th
from torch.distributions import Distribution


def detach_attributes(owner: Any) -> None:
    """
    Let an object's attributes, and those of its distributions, keep nothing of an update alive but their values.

    A graph that is kept holds on to the nodes that accumulate its parameters' gradients. Each belongs to the stream that it
    was made on, and a recording that meets one of another stream fails.

    :param owner: the object; None: there is none
    """
    for name, value in () if owner is None else vars(owner).items():
        vars(owner)[name] = _detached(value)


def _detached(value: Any) -> Any:
    if isinstance(value, th.Tensor):
        return value.detach() if value.grad_fn is not None else value
    if isinstance(value, Distribution):
        value = copy.copy(value)
        detach_attributes(value)
    return value
