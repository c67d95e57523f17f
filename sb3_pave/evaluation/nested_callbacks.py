"""Callbacks in lists of callbacks, as ``learn()`` makes them of what it is given."""

from __future__ import annotations

from collections.abc import Iterator

from stable_baselines3.common.callbacks import BaseCallback, CallbackList


def flattened(callback: BaseCallback | None) -> Iterator[BaseCallback]:
    """
    :param callback: a callback, or a list of them; None for none
    :return: the callbacks in it, at any depth, then itself
    """
    if isinstance(callback, CallbackList):
        for one in callback.callbacks:
            yield from flattened(one)
    if callback is not None:
        yield callback
