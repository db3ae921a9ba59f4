"""A process that neither outlives its launcher nor leaves anything behind: see guardian.py."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from inflight.errors import InflightError
from inflight.launcher import server_directory
from inflight.launcher.server_directory import ServerDirectory

_GUARDIAN = Path(__file__).with_name("guardian.py")


class GuardedProcess:
    """`command`, which runs under a guardian and inherits the descriptors `kept_fds`. Its output goes to `log`; its
    threads have stacks of `stack_bytes`, or what is usual here.

    When it ends, the guardian kills what it has left and removes `directory`; only then does wait() return.
    Raises InflightError if it cannot be started. Any thread may call the methods.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: BinaryIO,
        directory: ServerDirectory,
        kept_fds: Sequence[int] = (),
        stack_bytes: int | None = None,
    ):
        self._directory = directory
        self._lock = threading.Lock()
        self._status: int | None = None
        self._guardian = _start_guardian(log, (directory.lock, *kept_fds))
        self._orders, self._answers = cast(BinaryIO, self._guardian.stdin), cast(BinaryIO, self._guardian.stdout)
        directory.release()
        order = {
            "launcher": os.getpid(),
            "directory": str(directory.path),
            "command": list(command),
            "environment": dict(environment),
            "kept_fds": list(kept_fds),
            "stack_bytes": stack_bytes,
        }
        self._write(json.dumps(order))
        word, _, rest = self._answers.readline().decode(errors="replace").strip().partition(" ")
        if word != "started":
            self._end()
            raise InflightError(f"cannot start {command[0]}: {rest or 'its guardian was killed'}")
        self.pid = int(rest)

    def send_signal(self, number: int) -> None:
        """Passes a signal on to the process; nothing happens if it has ended."""
        with self._lock:
            self._write(str(int(number)))

    def kill(self) -> None:
        """Ends the process and all its children at once."""
        with self._lock, suppress(OSError):  # an order that nobody reads any more
            self._orders.close()

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit status, negative for a signal, once nothing of the process is left; None after `timeout` seconds."""
        if self._status is None:
            poll = select.poll()
            poll.register(self._answers, select.POLLIN)
            if not poll.poll(None if timeout is None else timeout * 1000):
                return None
            with self._lock:
                if self._status is None:
                    self._status = self._end()
        return self._status

    def _write(self, line: str) -> None:
        with suppress(OSError, ValueError):  # the process has ended, or was killed
            self._orders.write(line.encode() + b"\n")
            self._orders.flush()

    def _end(self) -> int:
        """Waits for the guardian and returns the status that it reports; if it was killed, does what it should have."""
        word, _, status = self._answers.read().decode().strip().partition(" ")
        self._guardian.wait()
        with suppress(OSError):
            self._orders.close()
        self._answers.close()
        if word == "ended":
            return int(status)
        with suppress(ProcessLookupError):
            os.killpg(self._guardian.pid, signal.SIGKILL)
        server_directory.remove(self._directory.path)
        return -signal.SIGKILL


def _start_guardian(log: BinaryIO, kept_fds: Sequence[int]) -> subprocess.Popen:
    utf8 = ["-X", "utf8"] if sys.flags.utf8_mode else []  # -I ignores the environment variable
    return subprocess.Popen(
        [sys.executable, "-I", "-S", *utf8, str(_GUARDIAN)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        pass_fds=kept_fds,
        start_new_session=True,
    )
