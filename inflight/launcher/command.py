"""scripts/launch_server.py: runs a server in the foreground, with the options of upstream's launcher."""

import argparse
import sys
from pathlib import Path

from inflight.launcher.options import add_server_arguments
from inflight.launcher.stop_signals import StopSignals


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status, which docs/serving.md explains; a failure is one message on stderr."""
    with StopSignals() as stop:  # before the other imports, which take a second
        from inflight.errors import InflightError
        from inflight.launcher.launch import run_server

        options = parse_arguments(arguments)
        try:
            if options.world_size != 1:
                message = f"--world_size is {options.world_size}; this version serves engines of one rank only"
                raise InflightError(message)
            return run_server(Path(options.model_repo), options, stop, "launch_server")
        except InflightError as error:
            print(f"launch_server: {error}", file=sys.stderr)
            return 1


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Starts tritonserver over a model repository and stays until it ends.")
    parser.add_argument(
        "--model_repo", required=True, metavar="DIR", help="model repository, as `inflight repo` writes it"
    )
    parser.add_argument("--world_size", type=int, default=1, help="ranks of the engine (default: 1)")
    add_server_arguments(parser)
    parser.add_argument(
        "--force",
        "-f",
        action="store_true",
        help="upstream's: start beside a running server; always allowed here, on other ports",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
