"""Which agents' updates are recorded as CUDA graphs."""

import threading
from typing import Any

import torch as th
from torch import nn

from sb3_pave.fast.ensemble import has_hooks
from sb3_pave.fast.watch import are_known, hooks_of_gradient, hooks_of_steps, own_methods


def records(model: Any) -> bool:
    """
    Whether to record the agent's update: ``cuda_graph`` itself, and for "auto" whether that is sure to change nothing.

    :param model: the agent
    """
    if model.cuda_graph != "auto":
        return bool(model.cuda_graph)
    on_cuda = model.device.type == "cuda" and th.version.hip is None
    # While one thread records, random numbers and new memory of another one's raise
    is_alone = threading.current_thread() is threading.main_thread()
    return on_cuda and is_alone and model._obstacle_to_recording is None and calls_only_known(model)


def networks_of(model: Any) -> list[nn.Module]:
    """
    All modules of an agent's policy, and those that its attributes name beside it, each once.

    :param model: the agent
    """
    roots = [model.policy, *(value for value in vars(model).values() if isinstance(value, nn.Module))]
    return list({id(module): module for root in roots for module in root.modules()}.values())


def calls_only_known(model: Any) -> bool:
    """
    Whether updates and the policy call no Python of the user's.

    A recording repeats what the device was told to do. A network of the user's may decide in Python what to do, by a counter
    say, and would go on as it did when it was recorded. A method of the user's may, too.
    """
    modules, optimizers = networks_of(model), model._optimizers()
    classes = [*map(type, modules), *map(type, optimizers), *type(model).__mro__]
    if not are_known(classes):
        return False
    hooked = bool(own_methods(model)) or any(map(has_hooks, modules)) or any(map(hooks_of_steps, optimizers))
    hooked = hooked or any(map(hooks_of_gradient, model.policy.parameters()))
    return not hooked and all("capturable" in optimizer.defaults for optimizer in optimizers)
