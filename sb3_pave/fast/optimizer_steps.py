"""Where optimizers count their steps while updates are recorded; the number equals the one without recordings."""

from typing import Any

import torch as th


def move_steps(optimizer: th.optim.Optimizer, to_device: bool) -> None:
    """
    Recordings count an optimizer's steps where its parameters are; without them it counts on the CPU.

    :param optimizer: its state changes in place
    :param to_device: whether updates are about to be recorded
    """
    for group in optimizer.param_groups:
        on_device = to_device or group.get("fused") or group["capturable"]
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            if isinstance(state.get("step"), th.Tensor):
                state["step"] = state["step"].to(parameter.device if on_device else th.device("cpu"))


def without_capture(optimizer_state: dict[str, Any]) -> dict[str, Any]:
    """
    An optimizer's ``state_dict()`` as it would be had no update been recorded.

    :param optimizer_state: as it is
    """
    on_device = {
        parameter
        for group in optimizer_state["param_groups"]
        for parameter in group["params"]
        if group.get("capturable") or group.get("fused")
    }
    state = {
        index: {
            name: value.cpu() if name == "step" and index not in on_device and isinstance(value, th.Tensor) else value
            for name, value in own.items()
        }
        for index, own in optimizer_state["state"].items()
    }
    return {**optimizer_state, "state": state}
