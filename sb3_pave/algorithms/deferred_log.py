"""The log of updates whose device is still at work when ``train()`` returns."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stable_baselines3.common.logger import Logger

from sb3_pave.algorithms.signatures import HostsSignature
from sb3_pave.fast.update_log import UpdateLog


class DeferredLog:
    """
    Writes what a ``train()`` call logged when somebody asks for the logger, at the latest in the next call, while the device
    is at that one's updates, or when ``learn()`` ends: so no call waits for the device.

    Whoever has the logger itself, and not from the agent, reads the values of the call before.
    """

    _logger: Logger
    # With the number of updates up to its end
    _pending_log: tuple[UpdateLog, int] | None = None
    _n_updates: int

    if not TYPE_CHECKING:  # whose readers find the host's

        @HostsSignature
        def learn(self, *args: Any, **kwargs: Any) -> Any:
            """As the host's."""
            learned = super().learn(*args, **kwargs)
            self._finish_log()
            return learned

    @property
    def logger(self) -> Logger:
        """The logger, with all that was logged; may raise what ``train()`` raises of its losses."""
        self._finish_log()
        return self._logger

    def _defer_log(self, log: UpdateLog) -> None:
        log.send()
        self._pending_log = log, self._n_updates
        if not log.is_on_its_way:
            self._finish_log()

    def _finish_log(self) -> None:
        if self._pending_log is not None:
            pending, self._pending_log = self._pending_log, None
            self._write_log(*pending)

    @contextmanager
    def _finishing_log_of_before(self) -> Iterator[None]:
        """The log that is pending now is written at the end of this context, whatever asks for the logger in it."""
        before, self._pending_log = self._pending_log, None
        try:
            yield
        finally:
            if before is not None:
                self._write_log(*before)

    def _write_log(self, log: UpdateLog, n_updates: int) -> Any:
        raise NotImplementedError
