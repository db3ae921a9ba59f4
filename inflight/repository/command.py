"""The `inflight repo` command."""

import argparse
from pathlib import Path

from inflight.errors import InflightError
from inflight.repository.generate import generate_repository


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("engine", type=Path, help="engine directory, as `inflight build` makes it")
    parser.add_argument("--out", type=Path, required=True, help="model repository to make")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a template variable that is to differ from what follows from the engine; may be repeated",
    )


def run(options: argparse.Namespace) -> None:
    overrides = dict(_parse_override(text) for text in options.overrides)
    generate_repository(options.engine, options.out, **overrides)
    print(f"{options.out}: model repository of {options.engine}")


def _parse_override(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InflightError(f"--set {text}: expected KEY=VALUE")
    return key, value
