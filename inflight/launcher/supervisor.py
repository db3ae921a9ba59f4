"""Keeps a server running: starts it again when it dies by a signal or loses the process of a Python model."""

import signal
import time
from collections.abc import Callable

from inflight.errors import InflightError
from inflight.launcher.options import RestartPolicy
from inflight.launcher.python_stubs import PythonStubs
from inflight.launcher.server import TritonServer
from inflight.launcher.stop_signals import StopSignals

_LOOK_PERIOD = 0.1  # seconds between two looks at whether a signal has come
_ENGINE_LOST = 70  # the exit status: kEngineLostStatus of backend/triton/shutdown.h
_STUBS_PERIOD = 1.0  # seconds between two looks at the Python models' processes


class Supervisor:
    """Runs `server` until `stop` receives a signal, or the server ends in a way that another start would not mend.

    `say` is given a line of text for whatever happens.
    """

    def __init__(self, server: TritonServer, stop: StopSignals, policy: RestartPolicy, say: Callable[[str], None]):
        self._server = server
        self._stop = stop
        self._policy = policy
        self._say = say
        self._restarts = 0  # in a row

    def run(self, ready_timeout: float, on_ready: Callable[[], None]) -> int:
        """Starts the server and returns the exit status of a launcher: 0 when a signal has ended a server that was
        ready; 128 + the signal's number when it was not. on_ready is called once, the first time.

        Raises InflightError if the server does not start, or ends by itself for good.
        """
        if self._stop or not self._start(ready_timeout):
            self._server.stop()
            return self._stop.exit_status
        on_ready()
        while (failure := self._watch()) is not None:
            self._restart(failure, ready_timeout)
        self._server.stop()
        return 0

    def _start(self, ready_timeout: float) -> bool:
        """False when a signal has come first."""
        self._server.start()
        return self._server.wait_until_ready(ready_timeout, give_up=lambda: bool(self._stop))

    def _watch(self) -> str | None:
        """Waits for what makes a restart necessary, and says it; None when a signal has come, or the server was ended
        by someone else in good order."""
        stubs = PythonStubs(self._server.pid)
        since, looked = time.monotonic(), float("-inf")
        while not self._stop:
            status = self._server.wait(_LOOK_PERIOD)
            now = time.monotonic()
            if now - since > self._policy.stable_after:
                self._restarts = 0
            if status is not None:
                return None if self._stop else self._judge(status)
            if now - looked > _STUBS_PERIOD:
                looked = now
                if dead := stubs.find_dead():
                    return f"the process of the Python model {', '.join(dead)} has died"
        return None

    def _judge(self, status: int) -> str | None:
        if status == _ENGINE_LOST:
            return "tritonserver lost its engine"
        if status > 0:
            raise InflightError(f"tritonserver ended with status {status}; see its log: {self._server.log_file}")
        return f"tritonserver died of {_signal_name(-status)}" if status < 0 else None

    def _restart(self, failure: str, ready_timeout: float) -> None:
        """Returns when the server is ready again, or a signal has come."""
        while True:
            if self._restarts >= self._policy.max_restarts:
                raise InflightError(f"{failure}; {self._given_up()}; see its log: {self._server.log_file}")
            self._restarts += 1
            delay = self._policy.delay(self._restarts)
            self._say(
                f"{failure}; restart {self._restarts} of {self._policy.max_restarts} in {delay:g} s"
                f" (log: {self._server.log_file})"
            )
            self._server.stop()  # not ready from here on
            if self._sleep(delay):
                return
            try:
                if self._start(ready_timeout):
                    self._say("ready again")
                return
            except InflightError as error:
                failure = str(error)
                self._server.stop()

    def _given_up(self) -> str:
        count = self._policy.max_restarts
        return f"it was restarted {count} times in a row" if count else "it is not restarted"

    def _sleep(self, seconds: float) -> bool:
        """True if a signal has come."""
        end = time.monotonic() + seconds
        while not self._stop and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_PERIOD))
        return bool(self._stop)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
