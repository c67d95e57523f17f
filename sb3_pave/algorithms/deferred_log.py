"""The log of updates whose device is still at work when ``train()`` returns."""

from typing import TYPE_CHECKING, Any

from stable_baselines3.common.logger import Logger

from sb3_pave.algorithms.signatures import HostsSignature
from sb3_pave.fast.update_log import UpdateLog


class DeferredLog:
    """
    Writes what a ``train()`` call logged when somebody asks for the logger, at the latest when the next call begins or
    ``learn()`` ends, so that no call waits for the device.

    Whoever has the logger itself, and not from the agent, reads the values of the call before.
    """

    _logger: Logger
    _pending_log: UpdateLog | None = None

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
        self._pending_log = log
        if not log.is_on_its_way:
            self._finish_log()

    def _finish_log(self) -> None:
        if self._pending_log is not None:
            log, self._pending_log = self._pending_log, None
            self._write_log(log)

    def _write_log(self, log: UpdateLog) -> Any:
        raise NotImplementedError
