"""One tritonserver over a model repository."""

import contextlib
import http.client
import os
import re
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from inflight.errors import InflightError
from inflight.launcher import server_directory
from inflight.launcher.backend_directory import find_backend_library, prepare_backend_directory
from inflight.launcher.environment import server_environment
from inflight.launcher.failure import explain_failure
from inflight.launcher.guarded_process import GuardedProcess
from inflight.launcher.options import EXIT_TIMEOUT, READY_TIMEOUT
from inflight.launcher.ports import choose_ports
from inflight.launcher.server_directory import ServerDirectory
from inflight.launcher.stack import stack_bytes
from inflight.launcher.tritonserver import find_tritonserver
from inflight.repository.check import check_repository
from inflight.repository.python_code import replacement_hint

_ENDING = 4  # seconds that requests have to end with an error after that
_POLL_PERIOD = 0.05  # seconds
_PLAIN_PATH = re.compile(r"[\w./-]*")  # Triton starts its python stubs by a shell command without quotes


class TritonServer:
    """A tritonserver process over `model_repository`; a context manager that is ready inside its block.

    A port of 0 is any free one: see http_port, grpc_port, metrics_port. The log goes to log_file; without one
    to a temporary file, which stays behind only if the server failed. exit_timeout is how many seconds
    stop() leaves to requests that still run. `arguments` are added to tritonserver's command line.

    No process outlives this one, and nothing of it stays behind: a guardian sees to that (guardian.py). A server that
    has ended can be started again.
    """

    def __init__(
        self,
        model_repository: str | os.PathLike,
        *,
        http_port: int = 0,
        grpc_port: int = 0,
        metrics_port: int = 0,
        tritonserver: str | os.PathLike | None = None,
        log_file: str | os.PathLike | None = None,
        log_verbose: int = 0,
        exit_timeout: int = EXIT_TIMEOUT,
        arguments: Sequence[str] = (),
    ):
        self.model_repository = Path(model_repository)
        if not self.model_repository.is_dir():
            raise InflightError(f"model repository {self.model_repository} is not a directory")
        check_repository(self.model_repository)
        self._repository = self.model_repository  # as Triton is told
        self._installation = find_tritonserver(tritonserver)
        self._library = find_backend_library()
        ports = choose_ports(http_port, grpc_port, metrics_port)
        self.http_port, self.grpc_port, self.metrics_port = ports.http, ports.grpc, ports.metrics
        self._exit_timeout = exit_timeout
        self._log_verbose = log_verbose
        self._arguments = list(arguments)
        self._keeps_log = log_file is not None
        self.log_file = (
            Path(log_file) if log_file else Path(tempfile.gettempdir()) / f"tritonserver-{uuid.uuid4().hex}.log"
        )
        self._log_begin = 0  # where this start's part of the log begins
        self._starts = 0
        self._process: GuardedProcess | None = None
        self._request_end: int | None = None  # the pipe by which the backend is told to end its requests
        self._was_ready = False

    def __enter__(self) -> "TritonServer":
        self.start()
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """tritonserver's process id."""
        return self._started().pid

    def start(self) -> None:
        """Starts the process and returns; InflightError if it cannot be started."""
        self._close_request_end()
        directory = ServerDirectory.create()
        try:
            self._start_in(directory)
        except BaseException:
            self._close_request_end()
            server_directory.remove(directory.path)
            raise
        self._starts += 1
        self._was_ready = False

    def _start_in(self, directory: ServerDirectory) -> None:
        backends = directory.path / "backends"
        backends.mkdir()
        prepare_backend_directory(backends, self._installation, self._library)
        read_end, self._request_end = os.pipe()
        environment = server_environment(self._installation, directory) | {
            "INFLIGHT_END_REQUESTS_FD": str(read_end),
            "INFLIGHT_SERVER_RESTARTS": str(self._starts),
        }
        command = self._command(directory)
        try:
            with open(self.log_file, "ab" if self._starts else "wb") as log:
                self._log_begin = log.tell()
                self._process = GuardedProcess(command, environment, log, directory, [read_end], stack_bytes())
        except OSError as error:
            raise InflightError(f"cannot start {command[0]}: {error}") from error
        finally:
            os.close(read_end)

    def wait_until_ready(self, timeout: float = READY_TIMEOUT, give_up: Callable[[], bool] = lambda: False) -> bool:
        """Returns True when the server and all its models are ready, or False as soon as give_up() does not want to
        wait any longer.

        Raises InflightError with the models' own errors and the name of the log if the server exits, or is not
        ready within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while not self._is_ready():
            if give_up():
                return False
            if self._started().wait(_POLL_PERIOD) is not None:
                raise InflightError(f"tritonserver did not start:\n{self._reason()}\nfull log: {self.log_file}")
            if time.monotonic() > deadline:
                raise InflightError(f"tritonserver is not ready after {timeout:.0f} s; see its log: {self.log_file}")
        self._was_ready = True
        return True

    def wait(self, timeout: float | None = None) -> int | None:
        """Waits until the process has ended and returns its exit status, None after `timeout` seconds."""
        return self._started().wait(timeout)

    def stop(self) -> int | None:
        """Ends the server and returns its exit status, None if it was never started.

        It takes no new connections from now on. Requests have exit_timeout seconds to end; what still runs is ended
        with an error then, and a server that does not end after that, because a client keeps its connection, is killed.
        """
        if self._process is None:
            return None
        if self._process.wait(0) is None:
            self._process.send_signal(signal.SIGTERM)
            if not self._was_ready or self._process.wait(self._exit_timeout) is None:
                self.end_requests()
                if self._process.wait(_ENDING) is None:
                    self._process.kill()
            if self._was_ready and not self._keeps_log:
                self.log_file.unlink(missing_ok=True)
        self._close_request_end()
        return self._process.wait()

    def end_requests(self) -> None:
        """Has our backend end every request with an error, those that are still to come as well."""
        if self._request_end is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._request_end, b"\n")

    def _close_request_end(self) -> None:
        if self._request_end is not None:
            os.close(self._request_end)
            self._request_end = None

    def _command(self, directory: ServerDirectory) -> list[str]:
        if not _PLAIN_PATH.fullmatch(str(self.model_repository)):
            self._repository = directory.path / "repository"
            self._repository.symlink_to(self.model_repository.absolute())
        return [
            str(self._installation.executable),
            f"--model-repository={self._repository}",
            f"--backend-directory={directory.path / 'backends'}",
            f"--http-port={self.http_port}",
            f"--grpc-port={self.grpc_port}",
            f"--metrics-port={self.metrics_port}",
            f"--exit-timeout-secs={self._exit_timeout + _ENDING}",
            f"--log-verbose={self._log_verbose}",
            "--disable-auto-complete-config",
            f"--backend-config=python,shm-region-prefix-name={directory.shared_memory_prefix}",
            *self._arguments,
        ]

    def _is_ready(self) -> bool:
        # Triton opens the port of its metrics last, after it has said that it is ready.
        return _answers(self.http_port, "/v2/health/ready") and (
            not self._has_metrics() or _answers(self.metrics_port, "/metrics")
        )

    def _has_metrics(self) -> bool:
        values = [argument.partition("=")[2] for argument in self._arguments if argument.startswith("--allow-metrics")]
        return not values or values[-1].lower() not in ("0", "false", "off")

    def _started(self) -> GuardedProcess:
        if self._process is None:
            raise RuntimeError("the server has not been started")
        return self._process

    def _reason(self) -> str:
        with open(self.log_file, "rb") as log:
            log.seek(self._log_begin)
            text = log.read().decode(errors="replace")
        reason = explain_failure(text) or f"exit status {self._started().wait()}"
        reason += replacement_hint(self.model_repository, reason)
        return reason.replace(str(self._repository), str(self.model_repository))


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
