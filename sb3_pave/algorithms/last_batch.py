"""What joining the steps of a host's own ``train()`` takes: the batch that it drew last, and steps that can be joined."""

from functools import partial
from typing import Any

import torch as th
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from sb3_pave.method.successor import Successor, sample_with_successor


class LastBatch:
    """
    Remembers what a replay buffer's ``sample`` returned last, while in the context.

    :param replay_buffer: the replay buffer
    :param with_successor: whether one-step successors are needed
    """

    def __init__(self, replay_buffer: Any, with_successor: bool):
        self._replay_buffer = replay_buffer
        self._sample = replay_buffer.sample
        self._with_successor = with_successor
        self._batch: tuple[ReplayBufferSamples, Successor] | None = None
        self.used = False

    @property
    def drawn(self) -> bool:
        """Whether any batch was drawn."""
        return self._batch is not None

    def get(self) -> tuple[ReplayBufferSamples, Successor]:
        """:raises RuntimeError: if there is none"""
        if self._batch is None:
            raise RuntimeError(
                "train() stepped an optimizer without a batch from self.replay_buffer.sample(), so the transitions that the "
                "added terms are about are not known. Draw them there, or set the weights of the terms to 0."
            )
        self.used = True
        return self._batch

    def __enter__(self) -> "LastBatch":
        # On the instance: it hides the method of the class, and that of a context around this one
        self._hidden = vars(self._replay_buffer).get("sample")
        self._replay_buffer.sample = self._draw
        return self

    def __exit__(self, *exception: object) -> None:
        if self._hidden is None:
            del self._replay_buffer.sample
        else:
            self._replay_buffer.sample = self._hidden

    def _draw(self, *args: Any, **kwargs: Any) -> ReplayBufferSamples:
        draw = partial(self._sample, *args, **kwargs)
        if self._with_successor:
            self._batch = sample_with_successor(self._replay_buffer, draw)
        else:
            replay_data = draw()
            self._batch = replay_data, Successor(replay_data.next_observations, None)
        return self._batch[0]


def refuse_closure(arguments: tuple[Any, ...], keywords: dict[str, Any], who: str, advice: str) -> None:
    """
    :param arguments: of an optimizer's ``step``, itself among them
    :param keywords: of the same
    :param who: steps it, and which one, for the message
    :param advice: what to do, likewise
    :raises RuntimeError: if they have a closure, which computes gradients when whoever joins the step has come
    """
    if len(arguments) > 1 or keywords.get("closure") is not None:
        raise RuntimeError(f"{who} a closure: its gradients would take the place of what is added before the step. {advice}")


def parameter_versions(network: th.nn.Module) -> list[int]:
    """
    :param network: whose parameters are trained in place, which counts their version up
    """
    return [parameter._version for parameter in network.parameters()]
