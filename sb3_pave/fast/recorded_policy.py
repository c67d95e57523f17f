"""A policy's actions recorded as a CUDA graph and replayed; equals calling the policy."""

import threading
import weakref
from typing import Any, NamedTuple

import torch as th
from gymnasium import spaces

from sb3_pave.fast.capture import Capture, Outcome
from sb3_pave.fast.compiled import in_a_line
from sb3_pave.fast.recordings import WARM_UPS, Recording, loaded
from sb3_pave.fast.watch import Watch
from sb3_pave.method.batches import on_device
from sb3_pave.user_warning import warn_user


class RecordedPolicy:
    """
    Stands in for SB3's ``policy._predict``, and for ``policy.obs_to_tensor`` before it. Where the actor is not as it was at
    the first call, and in other threads, they are called as they are.

    :param model: the agent
    :param capture: how to record
    """

    def __init__(self, model: Any, capture: Capture):
        self._model, self._policy = weakref.ref(model), model.policy
        self._watch: Watch | None = None
        self._capture = capture
        self._recordings: dict[Any, Recording] = {}
        self._given_up = False
        self._thread = threading.get_ident()

    @property
    def is_elsewhere(self) -> bool:
        """Whether this is another thread, which evaluates meanwhile, say: the recordings' memory is the agent's."""
        return threading.get_ident() != self._thread

    def obs_to_tensor(self, observation: Any) -> tuple[Any, bool]:
        """
        Leaves observations on the CPU: SB3's own copy to the device would wait until all updates there are done, and what
        follows it would begin only then.

        :param observation: of the environments
        :return: as tensors, and whether it is of several environments
        """
        policy = self._policy if self.is_elsewhere else _OnHost(self._policy.observation_space)
        return type(self._policy).obs_to_tensor(policy, observation)

    def __call__(self, observation: Any, deterministic: bool = False) -> th.Tensor:
        """
        :param observation: on the CPU or the device, shape (n_envs, ...) or a dict of such
        :param deterministic: whether the action is the most probable one
        :return: shape (n_envs, action_dim); the next call writes into the same memory
        """
        if self.is_elsewhere:
            return self._predict(observation, deterministic)
        if self._watch is None:
            # Not before: networks act in evaluation mode
            self._watch = Watch(self._model(), [self._policy, *self._policy.actor.modules()], (), ())
        if self._given_up or self._watch.sees_change():
            return self._predict(observation, deterministic)
        recording = loaded(self._recordings, observation, deterministic, self._capture.device)

        def act() -> Outcome:
            return Outcome((), self._predict(recording.inputs.batch, deterministic), {})

        if recording.replay is not None:
            return recording.replay().values
        if recording.n_warm_ups < WARM_UPS:
            recording.n_warm_ups += 1
            return self._capture.warm_up(act).values
        try:
            recording.replay = self._capture.record(act)
        except Exception as error:  # whatever the driver makes of what can't be captured
            self._given_up = True
            reason = in_a_line(error)
            warn_user(f"cuda_graph: the policy can't be recorded: {reason}. Acting goes on without.")
            return self._predict(observation, deterministic)
        return recording.replay().values

    def _predict(self, observation: Any, deterministic: bool) -> th.Tensor:
        # The class's: this stands in for the policy's own
        return type(self._policy)._predict(self._policy, on_device(observation, self._capture.device), deterministic)


class _OnHost(NamedTuple):
    """What ``obs_to_tensor`` asks a policy for."""

    observation_space: spaces.Space
    device: th.device = th.device("cpu")
