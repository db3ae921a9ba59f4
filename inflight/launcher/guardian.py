"""Runs a server as its child and ends everything of it, whatever happens to the launcher.

The first line of stdin is JSON, see Order. Then come signal numbers, one a line, which are passed on to the server;
when stdin closes, or the launcher is gone, the server is killed. Once the server has ended, the guardian kills what the
server has left, removes its directory (see server_directory.py) and ends. It says "started PID" or "failed REASON" on
stdout, and at last "ended STATUS", negative for a signal. The server's output goes to stderr.

A process of its own, with one thread: so it survives the launcher, may set a death signal between fork and exec, and
adopts what the server's children leave. It starts within milliseconds: the standard library alone, and no site.
"""

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).absolute().parents[2]))  # not site-packages: only this package

from inflight.launcher import server_directory  # noqa: E402

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # <sys/prctl.h>
_LAUNCHER_PERIOD = 1.0  # seconds between two looks at whether the launcher lives
_LIBC = ctypes.CDLL(None)


@dataclass(frozen=True)
class Order:
    launcher: int  # process id
    directory: str  # is removed in the end
    command: list[str]
    environment: dict[str, str]
    kept_fds: list[int]  # that the server inherits
    stack_bytes: int | None  # the server's soft limit


def main() -> None:
    child_ended = _wake_on_child()
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    line, _, orders = _read_line()
    order = Order(**json.loads(line))
    try:
        report = _run(order, orders, child_ended)
    finally:
        _kill_children()
        server_directory.remove(Path(order.directory))
    _say(report)


def _read_line() -> tuple[bytes, bytes, bytes]:
    data = b""
    while b"\n" not in data:
        more = os.read(0, 65536)
        if not more:
            sys.exit()  # the launcher was killed just now
        data += more
    return data.partition(b"\n")


def _run(order: Order, orders: bytes, child_ended: int) -> str:
    """Runs the server to its end and returns what to say of it."""
    try:
        server = subprocess.Popen(
            order.command,
            env=order.environment,
            stdin=subprocess.DEVNULL,
            stdout=2,
            pass_fds=order.kept_fds,
            preexec_fn=lambda: _before_exec(order.stack_bytes),
        )
    except OSError as error:
        return f"failed {error}"
    for descriptor in order.kept_fds:
        os.close(descriptor)
    _say(f"started {server.pid}")
    while server.poll() is None:
        *numbers, orders = orders.split(b"\n")
        for number in numbers:
            server.send_signal(int(number))
        readable, _, _ = select.select([0, child_ended], [], [], _LAUNCHER_PERIOD)
        if child_ended in readable:
            os.read(child_ended, 4096)
        more = os.read(0, 4096) if 0 in readable else None
        if more == b"" or os.getppid() != order.launcher:
            server.kill()
            server.wait()
        orders += more or b""
    return f"ended {server.returncode}"


def _before_exec(stack_bytes: int | None) -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if stack_bytes is not None:
        resource.setrlimit(resource.RLIMIT_STACK, (stack_bytes, resource.getrlimit(resource.RLIMIT_STACK)[1]))


def _wake_on_child() -> int:
    """A descriptor that is readable when a child has ended. Signals that a terminal or a service manager sends to
    everybody change nothing: the launcher gets them, too."""
    readable, writable = os.pipe()
    for descriptor in (readable, writable):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # not SIG_IGN, which the server would inherit
    return readable


def _kill_children() -> None:
    """Until there are none: who loses its parent becomes a child of this process."""
    while True:
        for process in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.005)
        except ChildProcessError:
            return


def _children() -> list[int]:
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(file.read_bytes().rpartition(b")")[2].split()[1])
            if parent == os.getpid():
                found.append(int(file.parent.name))
    return found


def _say(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, line.encode(errors="surrogateescape") + b"\n")


if __name__ == "__main__":
    main()
