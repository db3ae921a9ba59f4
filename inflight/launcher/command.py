"""scripts/launch_server.py and, under upstream's name, scripts/launch_triton_server.py: run a server."""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from inflight.launcher.options import add_upstream_arguments
from inflight.launcher.stop_signals import StopSignals


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a server in the foreground, with the options of upstream's launcher. Returns the exit status, which
    docs/serving.md explains; a failure is one message on stderr."""
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


def start_in_background(arguments: Sequence[str]) -> int:
    """Starts main() with `arguments` as a process of its own, which stays, and returns at once, as upstream's launcher
    does. What it has to say goes where this process's output goes."""
    parse_arguments(arguments)  # what is wrong with them is said now
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, *arguments], stdin=subprocess.DEVNULL, start_new_session=True
    )
    print(f"launch_server: starting as process {process.pid}; `kill {process.pid}` stops it", flush=True)
    return 0


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Starts tritonserver over a model repository.")
    add_upstream_arguments(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
