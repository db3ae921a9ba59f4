"""Runs a server in the foreground."""

import argparse
import sys
from pathlib import Path

from inflight.errors import InflightError
from inflight.launcher.options import RestartPolicy
from inflight.launcher.stop_signals import StopSignals


def run_server(repository: Path, options: argparse.Namespace, stop: StopSignals, command: str) -> int:
    """Runs a server over `repository` until it ends and returns the launcher's exit status, see Supervisor.run.

    options: those of add_server_arguments. command: the name before each line on stderr. Raises InflightError.
    """
    _require_server_packages()
    from inflight.launcher.server import TritonServer
    from inflight.launcher.supervisor import Supervisor

    def say(text: str) -> None:
        print(f"{command}: {text}", file=sys.stderr, flush=True)

    server = TritonServer(
        repository,
        http_port=options.http_port,
        grpc_port=options.grpc_port,
        metrics_port=options.metrics_port,
        tritonserver=options.tritonserver,
        log_file=options.log_file,
        log_verbose=3 if options.log else 0,
        exit_timeout=options.exit_timeout,
    )
    ready = (
        f"ready: HTTP {server.http_port}, gRPC {server.grpc_port}, metrics {server.metrics_port};"
        f" log: {server.log_file}"
    )
    say(f"starting; log: {server.log_file}")
    try:
        supervisor = Supervisor(server, stop, RestartPolicy(options.max_restarts), say)
        status = supervisor.run(options.timeout, on_ready=lambda: print(ready, flush=True))
    finally:
        server.stop()
    if stop:
        say(f"stopped by {stop.name}" + (" before the server was ready" if status else ""))
    return status


def _require_server_packages() -> None:
    try:
        import google.protobuf  # noqa: F401
        import tritonclient.grpc.model_config_pb2  # noqa: F401
    except ModuleNotFoundError as error:
        raise InflightError(
            f"the server needs the Python package {error.name}, which is not installed: run `pip install '.[server]'`"
            " in a clone of Inflight, or `pip install 'tritonclient[grpc]' nvidia-pytriton==0.7.0`"
        ) from error
