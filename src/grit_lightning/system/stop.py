"""Requests to stop: Ctrl-C, SIGTERM and SIGHUP become one exception, at once or at the end of a protected section."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import NoReturn

GRACE = 30.0
"""Seconds that a protected section may take to end after a signal, before it is interrupted anyway."""


class Stopped(KeyboardInterrupt):
    """A request to stop, raised in the main thread like Ctrl-C.

    Args:
        signum: the signal that asked.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum

    @property
    def status(self) -> int:
        """The exit status of a process that ends because of this signal, by the convention of shells."""
        return 128 + self.signum


class StopSignals:
    """Handlers of SIGINT, SIGTERM and SIGHUP.

    The first signal raises :class:`Stopped`. While :meth:`postpone` is in force it is only noted, for at most
    :data:`GRACE` seconds; a second Ctrl-C then interrupts at once. Later signals of a process that is already on its
    way out are ignored.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._postponed = False
        self._terminals: set[int] = set()

    def install(self) -> None:
        """Install the handlers. A signal that the process was started to ignore (``nohup``) stays ignored.

        Lightning installs a handler of SIGTERM of its own, which with several processes waits for the others inside the
        handler; call this again to replace it. Only the main thread can install handlers: elsewhere nothing is done.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        self._terminals |= {descriptor for descriptor in (1, 2) if os.isatty(descriptor)}
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, self._handle)

    def postpone(self) -> None:
        """Begin a protected section, in which signals are noted and not raised."""
        self._postponed = True

    def resume(self) -> None:
        """End the protected section without raising: the caller looks at :attr:`received`."""
        self._postponed = False
        if threading.current_thread() is threading.main_thread():
            signal.setitimer(signal.ITIMER_REAL, 0)

    def raise_received(self) -> None:
        """Raise :class:`Stopped` if a signal was received."""
        if self.received is not None:
            raise Stopped(self.received)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        first = self.received is None
        self.received = self.received or signum
        self._leave_lost_terminals()
        if self._postponed and first:
            signal.signal(signal.SIGALRM, self._interrupt)
            signal.setitimer(signal.ITIMER_REAL, GRACE)
        elif first or signum == signal.SIGINT:
            self._interrupt(signum, frame)

    def _leave_lost_terminals(self) -> None:
        """Send further output nowhere if its terminal was closed: it would fail while the run is being saved."""
        for descriptor in [one for one in self._terminals if not os.isatty(one)]:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
            self._terminals.discard(descriptor)

    def _interrupt(self, signum: int, frame: FrameType | None) -> NoReturn:
        self.resume()
        raise Stopped(self.received or signum)


stop_signals = StopSignals()
"""The handlers of this process. Signals belong to a process, so there is one object."""
