"""The `inflight install-backend` command."""

import argparse
from pathlib import Path

from inflight.launcher.install import install_backend
from inflight.launcher.tritonserver import find_tritonserver


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIR", help="the folder of backends; made if it is not there")
    parser.add_argument(
        "--tritonserver", metavar="PATH", help="default: found on PATH, in /opt/tritonserver or in nvidia-pytriton"
    )
    parser.epilog = (
        "For those who start tritonserver themselves, under Slurm for instance: a script in DIR starts it with the"
        " backend. `inflight serve` needs none of this."
    )


def run(options: argparse.Namespace) -> None:
    server = install_backend(options.directory, find_tritonserver(options.tritonserver))
    print(f"{server.parent}: backends inflight and tensorrtllm")
    print(f"next: {server} --model-repository=REPOSITORY")
    print(f"  or: launch_triton_server.py --tritonserver={server} --model_repo=REPOSITORY   (upstream's)")
