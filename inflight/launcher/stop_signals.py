"""SIGINT, SIGTERM and SIGHUP, kept from the first moment on.

Imports nothing of this package, so that a command can catch signals before it imports what takes long.
"""

import os
import signal
import time
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ONE_PRESS = 1.0  # seconds: a terminal and the programs between forward one Ctrl-C several times


class StopSignals:
    """Catches signals while it is open; `received` is the first one's number, None before.

    The handler only takes a note, so that a signal is lost nowhere, neither in an import nor in a destructor: whoever
    waits looks at the note. A second signal, a second later, ends this process at once, and its guardian ends the
    server. What was ignored (nohup) stays so.
    """

    def __init__(self):
        self.received: int | None = None
        self._since = 0.0
        self._previous = {}
        for number in _SIGNALS:
            if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._receive)

    def close(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def __enter__(self) -> "StopSignals":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def __bool__(self) -> bool:
        return self.received is not None

    @property
    def name(self) -> str:
        return "no signal" if self.received is None else signal.Signals(self.received).name

    @property
    def exit_status(self) -> int:
        """A shell's for a command that the signal has ended."""
        return 0 if self.received is None else 128 + self.received

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self._since = number, time.monotonic()
        elif time.monotonic() - self._since > _ONE_PRESS:
            os._exit(128 + number)
