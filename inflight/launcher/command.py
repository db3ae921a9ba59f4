"""scripts/launch_server.py: runs a server in the foreground, with the options of upstream's launcher."""

import argparse
import signal
import sys

from inflight.errors import InflightError
from inflight.launcher.server import READY_TIMEOUT, TritonServer


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Starts tritonserver over a model repository and stays until it ends.")
    parser.add_argument(
        "--model_repo", required=True, metavar="DIR", help="model repository, as `inflight repo` writes it"
    )
    parser.add_argument("--world_size", type=int, default=1, help="ranks of the engine (default: 1)")
    parser.add_argument(
        "--tritonserver", metavar="PATH", help="default: found on PATH, in /opt/tritonserver or in nvidia-pytriton"
    )
    parser.add_argument("--http_port", type=int, default=8000, help="0: any free port (default: 8000)")
    parser.add_argument("--grpc_port", type=int, default=8001, help="0: any free port (default: 8001)")
    parser.add_argument("--metrics_port", type=int, default=8002, help="0: any free port (default: 8002)")
    parser.add_argument("--log", action="store_true", help="log verbosely (level 3)")
    parser.add_argument(
        "--log-file", "--log_file", metavar="FILE", help="where the log goes (default: a temporary file)"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=READY_TIMEOUT,
        metavar="SECONDS",
        help=f"how long the models may take to load (default: {READY_TIMEOUT:.0f})",
    )
    parser.add_argument(
        "--force",
        "-f",
        action="store_true",
        help="upstream's: start beside a running server; always allowed here, on other ports",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Returns tritonserver's exit status, or 1 with one message on stderr when it did not start."""
    options = parse_arguments(arguments)
    try:
        return run(options)
    except InflightError as error:
        print(f"launch_server: {error}", file=sys.stderr)
        return 1


def run(options: argparse.Namespace) -> int:
    if options.world_size != 1:
        raise InflightError(f"--world_size is {options.world_size}; this version serves engines of one rank only")
    stopping = False
    server: TritonServer | None = None

    def forward(number, _frame):
        nonlocal stopping
        stopping = True
        if server is not None:
            server.send_signal(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        server = TritonServer(
            options.model_repo,
            http_port=options.http_port,
            grpc_port=options.grpc_port,
            metrics_port=options.metrics_port,
            tritonserver=options.tritonserver,
            log_file=options.log_file,
            log_verbose=3 if options.log else 0,
        )
        server.start()
        if stopping:  # the signal came before there was a process to pass it on to
            server.send_signal(signal.SIGTERM)
        try:
            server.wait_until_ready(options.timeout)
        except InflightError:
            if not stopping:
                raise
        else:
            print(
                f"ready: HTTP {server.http_port}, gRPC {server.grpc_port}, metrics {server.metrics_port};"
                f" log: {server.log_file}",
                flush=True,
            )
        status = server.wait()
        if status != 0 and not stopping:
            raise InflightError(f"tritonserver ended with status {status}; see its log: {server.log_file}")
        if status != 0:
            print(
                f"launch_server: tritonserver ended with status {status}: connections or requests were still open;"
                f" log: {server.log_file}",
                file=sys.stderr,
            )
        return status
    finally:
        if server is not None:
            server.stop()
        for number, handler in previous.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
