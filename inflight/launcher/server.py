"""Runs one tritonserver over a model repository."""

import contextlib
import ctypes
import http.client
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from inflight.errors import InflightError
from inflight.launcher.backend_directory import find_backend_library, find_preload, prepare_backend_directory
from inflight.launcher.environment import server_environment
from inflight.launcher.failure import explain_failure
from inflight.launcher.ports import choose_ports
from inflight.launcher.tritonserver import find_tritonserver
from inflight.repository.check import check_repository

READY_TIMEOUT = 300.0  # seconds until a server must be ready
_POLL_PERIOD = 0.05  # seconds
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
_LIBC = ctypes.CDLL(None)


class TritonServer:
    """A tritonserver process over `model_repository`; a context manager that is ready inside its block.

    A port of 0 is any free one: see http_port, grpc_port, metrics_port. The log goes to log_file; without one
    to a temporary file, which stays behind only if the server failed. exit_timeout is how many seconds
    stop() leaves to requests that still run. `arguments` are added to tritonserver's command line.

    No process outlives this one: the kernel ends the server when its launcher dies, and the stubs of the
    python backend end when their server does.
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
        exit_timeout: int = 10,
        arguments: Sequence[str] = (),
    ):
        self.model_repository = Path(model_repository)
        if not self.model_repository.is_dir():
            raise InflightError(f"model repository {self.model_repository} is not a directory")
        check_repository(self.model_repository)
        self._repository = self.model_repository  # as Triton is told
        self._installation = find_tritonserver(tritonserver)
        self._library = find_backend_library()
        self._preload = find_preload()
        ports = choose_ports(http_port, grpc_port, metrics_port)
        self.http_port, self.grpc_port, self.metrics_port = ports.http, ports.grpc, ports.metrics
        self._exit_timeout = exit_timeout
        self._log_verbose = log_verbose
        self._arguments = list(arguments)
        self._keeps_log = log_file is not None
        self.log_file = (
            Path(log_file) if log_file else Path(tempfile.gettempdir()) / f"tritonserver-{uuid.uuid4().hex}.log"
        )
        self._shm_prefix = f"inflight_{uuid.uuid4().hex}_"
        self._directory: Path | None = None
        self._process: subprocess.Popen | None = None
        self._exited = threading.Event()
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

    def start(self) -> None:
        """Starts the process and returns; InflightError if it cannot be started."""
        self._directory = Path(tempfile.mkdtemp(prefix="inflight-server-", dir=_temporary_directory()))
        try:
            if " " in str(self._repository):  # Triton's python stubs split their arguments at spaces
                link = self._directory / "repository"
                link.symlink_to(self._repository.absolute())
                self._repository = link
            backends = self._directory / "backends"
            backends.mkdir()
            prepare_backend_directory(backends, self._installation, self._library)
            preload = self._directory / self._preload.name  # a path without the spaces that LD_PRELOAD splits at
            preload.symlink_to(self._preload)
            environment = server_environment(self._installation, preload)
            started = threading.Event()
            failures: list[Exception] = []
            # The thread lives as long as the process: the kernel's death signal follows the thread that forked.
            threading.Thread(target=self._run, args=(environment, started, failures), daemon=True).start()
            started.wait()
            if failures:
                raise InflightError(f"cannot start {self._installation.executable}: {failures[0]}")
        except BaseException:
            self._clean_up()
            raise

    def wait_until_ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Returns when the server and all its models are ready.

        Raises InflightError with the models' own errors and the name of the log if the server exits, or is not
        ready within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while not self._is_ready():
            if self._exited.wait(_POLL_PERIOD):
                raise InflightError(f"tritonserver did not start:\n{self._reason()}\nfull log: {self.log_file}")
            if time.monotonic() > deadline:
                raise InflightError(f"tritonserver is not ready after {timeout:.0f} s; see its log: {self.log_file}")
        self._was_ready = True

    def wait(self, timeout: float | None = None) -> int | None:
        """Waits until the process has ended and returns its exit status, None after `timeout` seconds."""
        return self._process.returncode if self._exited.wait(timeout) else None

    def send_signal(self, number: int) -> None:
        """Passes a signal on to the process, if there is one."""
        if self._process is not None and not self._exited.is_set():
            self._process.send_signal(number)

    def stop(self) -> int | None:
        """Ends the server, by force if it takes too long, and removes what it leaves. Returns its exit status."""
        if self._process is None:
            return None
        if not self._exited.is_set():
            self.send_signal(signal.SIGTERM)
            if not self._exited.wait(self._exit_timeout + 5):
                self._kill_group()
                self._exited.wait()
        self._kill_group()  # the stubs of Python models that a server in trouble left behind
        self._clean_up()
        if self._was_ready and not self._keeps_log and self._process.returncode == 0:
            self.log_file.unlink(missing_ok=True)
        return self._process.returncode

    def _run(self, environment: dict[str, str], started: threading.Event, failures: list[Exception]) -> None:
        try:
            with open(self.log_file, "wb") as log:
                self._process = subprocess.Popen(
                    self._command(),
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=lambda: _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
                )
        except Exception as error:  # whatever it is, start() reports it
            failures.append(error)
            return
        finally:
            started.set()
        self._process.wait()
        self._exited.set()

    def _command(self) -> list[str]:
        return [
            str(self._installation.executable),
            f"--model-repository={self._repository}",
            f"--backend-directory={self._directory / 'backends'}",
            f"--http-port={self.http_port}",
            f"--grpc-port={self.grpc_port}",
            f"--metrics-port={self.metrics_port}",
            f"--exit-timeout-secs={self._exit_timeout}",
            f"--log-verbose={self._log_verbose}",
            "--disable-auto-complete-config",
            f"--backend-config=python,shm-region-prefix-name={self._shm_prefix}",
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

    def _reason(self) -> str:
        log = self.log_file.read_text(encoding="utf-8", errors="replace")
        return explain_failure(log) or f"exit status {self._process.returncode}"

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _clean_up(self) -> None:
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        for region in Path("/dev/shm").glob(f"{self._shm_prefix}*"):
            region.unlink(missing_ok=True)


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _temporary_directory() -> str:
    """Where the server's own files go. Triton's python stubs and LD_PRELOAD cannot take a path with a space."""
    directory = tempfile.gettempdir()
    return "/tmp" if " " in directory else directory
