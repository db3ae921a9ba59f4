"""The `inflight serve` command."""

import argparse
from pathlib import Path

from inflight.launcher.options import add_server_arguments
from inflight.launcher.stop_signals import StopSignals


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path",
        type=Path,
        metavar="REPOSITORY|ENGINE",
        help="model repository, as `inflight repo` makes it, or engine, as `inflight build` does: then a repository"
        " with the defaults of `inflight repo` is made for as long as the server runs",
    )
    add_server_arguments(parser)
    parser.epilog = (
        "Runs tritonserver until SIGINT (Ctrl-C), SIGTERM or SIGHUP. Exit status: 0 when stopped by a signal once it"
        " was ready, 128 + the signal's number before that, 1 for a failure."
    )


def run(options: argparse.Namespace) -> int:
    """Returns the exit status. Raises InflightError."""
    with StopSignals() as stop:  # before the other imports, which take a second
        from inflight.launcher.launch import run_server
        from inflight.launcher.served_repository import served_repository

        with served_repository(options.path) as repository:
            return run_server(repository, options, stop, "inflight serve")
