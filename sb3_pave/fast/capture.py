"""How one update is recorded, by CUDA graphs; a replay equals running the update."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch as th


class Outcome(NamedTuple):
    """
    What one update leaves beside new parameters.

    :param tags: of what it logs
    :param values: of these, in one tensor
    :param attributes: what it set on the agent's exploration noise, by name; empty for most agents
    """

    tags: tuple[str, ...]
    values: th.Tensor
    attributes: dict[str, Any]


# Runs one update on static inputs
Update = Callable[[], Outcome]


class Capture(Protocol):
    """
    How updates are recorded.

    :param device: of networks and inputs
    :param capturable: whether optimizers have to be ``capturable``
    :param obstacle: why nothing can be recorded here, or None
    """

    device: th.device
    capturable: bool
    obstacle: str | None

    def warm_up(self, update: Update) -> Outcome:
        """Run the update, as it will be run while it is recorded."""

    def record(self, update: Update) -> Update:
        """
        Record the update without running it; what is returned replays it.

        Whatever is raised inside comes out, and everything but the recording is then as it was before.
        """


class CudaCapture:
    """
    Recording by CUDA graphs.

    :param device: of networks and inputs
    """

    capturable = True

    def __init__(self, device: th.device):
        self.device = device
        on_cuda = device.type == "cuda" and th.version.hip is None
        self._stream: th.cuda.Stream | None = None
        self.obstacle = None if on_cuda else f"the agent is on the device {device}, and CUDA graphs need a CUDA one"

    def warm_up(self, update: Update) -> Outcome:
        stream = self._side_stream()
        stream.wait_stream(th.cuda.current_stream(self.device))
        try:
            with th.cuda.stream(stream), unvalidated_distributions():
                return update()
        finally:
            # Also for what was begun before an interrupt: saving, say, reads it
            th.cuda.current_stream(self.device).wait_stream(stream)

    def record(self, update: Update) -> Update:
        graph = th.cuda.CUDAGraph()
        with th.cuda.device(self.device), self._healing():
            with th.cuda.graph(graph, stream=self._side_stream()), unvalidated_distributions():
                outcome = update()

        def replay() -> Outcome:
            graph.replay()
            return outcome

        return replay

    def _side_stream(self) -> th.cuda.Stream:
        """One for all warm-ups and recordings: libraries keep memory for each stream that they have worked on."""
        if self._stream is None:
            self._stream = th.cuda.Stream(self.device)
        return self._stream

    @contextmanager
    def _healing(self) -> Iterator[None]:
        """
        Undo what a recording that fails leaves behind.

        The current stream is still the recording's, and the default generator still believes that it is recorded: the next
        random number anywhere in the process would raise. A recording that succeeds ends that.
        """
        stream = th.cuda.current_stream(self.device)
        random_state = th.cuda.get_rng_state(self.device)
        try:
            yield
        except BaseException:  # an interrupt, too
            th.cuda.set_stream(stream)
            with th.cuda.graph(th.cuda.CUDAGraph(), stream=th.cuda.Stream(self.device)):
                th.zeros(1, device=self.device)
            th.cuda.set_rng_state(random_state, self.device)
            raise


@contextmanager
def unvalidated_distributions() -> Iterator[None]:
    """Distributions don't check their arguments in this context: that reads values back, which a recording can't."""
    before = th.distributions.Distribution._validate_args
    th.distributions.Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        th.distributions.Distribution.set_default_validate_args(before)
