"""The `inflight check` command."""

import argparse
from pathlib import Path

from inflight.checkpoint import config as checkpoint_config
from inflight.engine.check import check_checkpoint, check_engine
from inflight.json_object import format_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, help="engine or checkpoint, as `inflight build` or `convert` made it")


def run(options: argparse.Namespace) -> None:
    if format_of(options.directory) == checkpoint_config.FORMAT:
        check_checkpoint(options.directory)
    else:
        check_engine(options.directory)
    print(f"{options.directory}: every file is as it was written")
