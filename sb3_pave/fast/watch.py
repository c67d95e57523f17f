"""Whether anything changed that an update depends on; equals looking at all of it anew."""

import weakref
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import is_, itemgetter
from typing import Any

import numpy as np
import torch as th
from torch import nn

# Attributes of an SB3 agent that change while it learns, and that no update depends on. What is not named here and changes
# costs a look at everything, no more
PASSING = frozenset(
    "num_timesteps _total_timesteps _num_timesteps_at_start _n_updates _n_calls _episode_num _current_progress_remaining "
    "start_time seed verbose learning_rate learning_starts buffer_size batch_size gradient_steps n_envs _stats_window_size "
    "sde_sample_freq return_scale observation_spread _last_obs _last_original_obs _last_episode_starts _logger _custom_logger "
    "ep_info_buffer ep_success_buffer _graphs _standing _pending_log".split()
)
# Whose classes compute the same at each call, as far as Python goes
_KNOWN = ("torch", "stable_baselines3", "sb3_contrib", "sb3_pave", "abc", "builtins")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# Attributes of every module that calling it does not look at, or not unless it has one of the hooks above
_UNASKED = frozenset(
    "_non_persistent_buffers_set _state_dict_hooks _state_dict_pre_hooks _load_state_dict_pre_hooks "
    "_load_state_dict_post_hooks _is_full_backward_hook _forward_hooks_with_kwargs _forward_hooks_always_called "
    "_forward_pre_hooks_with_kwargs".split()
)


class Watch:
    """
    Remembers what an agent's updates are made of, at the time of its construction.

    The values of tensors and the learning rates are not among it: recordings read them from memory.

    :param model: the agent
    :param modules: its networks, each once, with all of their submodules
    :param optimizers: of its networks
    :param tensors: what its updates use beside the networks' parameters and buffers
    """

    def __init__(
        self,
        model: Any,
        modules: Sequence[nn.Module],
        optimizers: Sequence[th.optim.Optimizer],
        tensors: Sequence[th.Tensor],
    ):
        self._model = weakref.ref(model)  # which keeps this
        self._n_attributes = len(vars(model))
        self._values = _getter(name for name in vars(model) if name not in PASSING)
        self._networks = modules
        self._modules = [vars(module) for module in modules]
        kinds = [tuple(name for name in attributes if name not in _UNASKED) for attributes in self._modules]
        getters = {names: _getter(names) for names in kinds}
        self._get_attributes = [getters[names] for names in kinds]
        self._children = [module._modules for module in modules]
        self._lists = [value for attributes in self._modules for value in attributes.values() if type(value) is list]
        self._hooks = [vars(module)[name] for module in modules for name in _HOOKS if name in vars(module)]
        self._holders: list[dict[str, Any]] = [
            holder for module in modules for holder in (module._parameters, module._buffers) if holder
        ]
        self._tensors = tensors
        self._optimizers = [_OptimizerWatch(optimizer) for optimizer in optimizers]
        self._step_hooks = [hooks_of_steps(optimizer) for optimizer in optimizers]
        self._methods = own_methods(model)
        self._before = self._look()

    def sees_change(self) -> bool:
        """Whether anything is not as it was."""
        if len(vars(self._model())) != self._n_attributes:
            return True
        try:
            values, held, structure, hooks, numbers = self._look()
        except (KeyError, RuntimeError):  # an attribute that is gone, a tensor without memory
            return True
        values_before, held_before, structure_before, hooks_before, numbers_before = self._before
        return not (
            identical(values, values_before)
            and identical(held, held_before)
            and hooks == hooks_before
            and numbers == numbers_before
            and same(structure, structure_before)
            and not any(optimizer.sees_change() for optimizer in self._optimizers)
        )

    @property
    def structure(self) -> Any:
        """
        What the networks and optimizers are made of apart from tensors' memory and settings, to be compared with ``same``.
        """
        _, held, structure, hooks, _ = self._before
        return structure, hooks, _traits([tensor for tensor in held if tensor is not None]), self._step_hooks, self._methods

    def _look(self) -> tuple[Any, ...]:
        held = all_values(self._holders)
        tensors = [tensor for tensor in held if tensor is not None]
        numbers: list[Any] = _addresses(tensors) + _addresses(self._tensors)
        numbers += _traits(tensors)
        # Networks may be exchanged in a list that stays the same
        structure: list[Any] = [get(attributes) for get, attributes in zip(self._get_attributes, self._modules, strict=True)]
        structure += [*map(type, self._networks), *map(len, self._modules)]
        structure += [*all_values(filter(None, self._children)), *map(tuple, self._lists)]
        hooks = [*chain.from_iterable(filter(None, self._hooks))]  # most have none
        return self._values(vars(self._model())), held, structure, hooks, numbers


class _OptimizerWatch:
    """The settings and the state of one optimizer, apart from learning rates and values of tensors."""

    def __init__(self, optimizer: th.optim.Optimizer):
        self._optimizer = optimizer
        self._groups = optimizer.param_groups
        self._settings = [_getter(name for name in group if name != "lr") for group in self._groups]
        self._state = optimizer.state
        self._before = self._look()

    def sees_change(self) -> bool:
        optimizer = self._optimizer
        if optimizer.param_groups is not self._groups or optimizer.state is not self._state:
            return True
        if len(self._groups) != len(self._settings):
            return True
        settings, parameters, states = self._look()
        settings_before, parameters_before, states_before = self._before
        return not (
            same(settings, settings_before) and identical(parameters, parameters_before) and identical(states, states_before)
        )

    def _look(self) -> tuple[list[Any], list[Any], list[Any]]:
        settings: list[Any] = [get(group) for get, group in zip(self._settings, self._groups, strict=True)]
        settings += hooks_of_steps(self._optimizer)
        parameters = list(chain.from_iterable([group["params"] for group in self._groups]))
        return settings, parameters, all_values(self._state.values())


def fixed_numbers(model: Any) -> dict[str, Any]:
    """
    The numbers among an agent's attributes that its updates may depend on: a recording holds their values.

    :param model: the agent
    """
    return {
        name: value
        for name, value in vars(model).items()
        if name not in PASSING and (value is None or isinstance(value, bool | int | float | np.generic))
    }


def hooks_of_steps(optimizer: th.optim.Optimizer) -> tuple[Any, ...]:
    """
    Functions that an optimizer calls before or after its steps, and those that replace its ``step`` or ``zero_grad``.

    :param optimizer: the optimizer
    """
    hooks = *optimizer._optimizer_step_pre_hooks.values(), *optimizer._optimizer_step_post_hooks.values()
    replaced = [vars(optimizer)[name] for name in ("step", "zero_grad") if name in vars(optimizer)]
    return *hooks, *replaced


def own_methods(owner: Any) -> list[tuple[str, Any]]:
    """
    The methods that were set on an object itself, in place of those of its class, by name.

    :param owner: an agent or a module
    """
    return [
        (name, value) for name, value in vars(owner).items() if callable(value) and callable(getattr(type(owner), name, None))
    ]


def are_known(classes: Iterable[type]) -> bool:
    """
    Whether none of some classes is the user's.

    :param classes: a class with all that it inherits, say
    """
    return all(cls.__module__.split(".")[0] in _KNOWN for cls in classes)


def _addresses(tensors: Sequence[th.Tensor]) -> list[int]:
    try:
        return [tensor.data_ptr() for tensor in tensors]
    except ValueError:  # lazy layers have no parameters until they see something
        return [0 if nn.parameter.is_lazy(tensor) else tensor.data_ptr() for tensor in tensors]


def _traits(tensors: Sequence[th.Tensor]) -> list[Any]:
    """What an update depends on in tensors besides their values: whether they learn, and the hooks of their gradients."""
    traits: list[Any] = [tensor.requires_grad for tensor in tensors]
    if any([tensor._backward_hooks or tensor._post_accumulate_grad_hooks for tensor in tensors]):
        traits += map(hooks_of_gradient, tensors)
    return traits


def hooks_of_gradient(tensor: th.Tensor) -> tuple[Any, ...]:
    """
    Functions that are called when a tensor gets its gradient.

    :param tensor: a parameter, say
    """
    hooks, after = tensor._backward_hooks, getattr(tensor, "_post_accumulate_grad_hooks", None)
    return (*(hooks or {}).values(), *(after or {}).values()) if hooks or after else ()


def same(first: Any, second: Any) -> bool:
    """
    Whether two nested sequences of anything are equal; identical entries are, and what can't be compared is not.

    :param first: one
    :param second: the other
    """
    try:
        return bool(first == second)
    except (RuntimeError, ValueError, TypeError):  # tensors, arrays
        return False


def identical(first: Sequence[Any], second: Sequence[Any]) -> bool:
    """
    Whether two sequences have the very same entries.

    :param first: one
    :param second: the other
    """
    return len(first) == len(second) and all(map(is_, first, second))


def all_values(mappings: Iterable[Any]) -> list[Any]:
    """
    The values of mappings, one after the other.

    :param mappings: dicts, or what scripted modules have in their place
    """
    return [value for mapping in mappings for value in mapping.values()]


def _getter(names: Any) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    names = list(names)
    if len(names) < 2:
        return lambda mapping: tuple(mapping[name] for name in names)
    return itemgetter(*names)
