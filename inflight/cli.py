"""The `inflight` command. Each subcommand's module is imported when it is used."""

import argparse
import importlib
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from inflight import __version__

COMMANDS = {
    "convert": ("inflight.checkpoint.command", "Hugging Face directory or GGUF file → checkpoint"),
    "build": ("inflight.engine.command", "checkpoint → engine, after printing the memory plan"),
    "check": ("inflight.engine.check_command", "whether the files of an engine or a checkpoint are undamaged"),
    "repo": ("inflight.repository.command", "engine → Triton model repository"),
    "serve": ("inflight.launcher.serve_command", "model repository or engine → running server"),
    "install-backend": ("inflight.launcher.install_command", "the backend, for a tritonserver that you start yourself"),
}


class Stopped(BaseException):
    """A signal asks the process to end. As an exception it lets everything be cleaned up."""

    def __init__(self, number: int):
        self.number = number


def main(argv: list[str] | None = None) -> int:
    """Runs one subcommand and returns its exit status. Bad input ends in one line on stderr and 1; Ctrl-C, SIGTERM or
    SIGHUP in one line and 128 + the signal's number. Neither leaves anything half-made behind."""
    try:
        with _signals_as_exceptions():
            return _run(sys.argv[1:] if argv is None else argv)
    except Stopped as stop:
        print(f"inflight: stopped by {signal.Signals(stop.number).name}", file=sys.stderr)
        return 128 + stop.number


def _run(arguments: list[str]) -> int:
    from inflight.errors import InflightError

    parser = argparse.ArgumentParser(prog="inflight", description=__doc__)
    parser.add_argument("--version", action="version", version=f"inflight {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True)
    for name, (module, help_text) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=help_text, description=help_text)
        if name in arguments[:1]:
            command = importlib.import_module(module)
            command.add_arguments(subparser)
            subparser.set_defaults(run=command.run)
    options = parser.parse_args(arguments)
    try:
        return options.run(options) or 0
    except InflightError as error:
        print(f"inflight {options.command}: {error}", file=sys.stderr)
        return 1


def _is_ignored(number: int) -> bool:
    """nohup, say, has it ignored, and so it stays."""
    return signal.getsignal(number) is signal.SIG_IGN


@contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield
        return

    def stop(number: int, _frame) -> None:
        for each in previous:
            signal.signal(each, signal.SIG_IGN)  # what is being cleaned up is not interrupted
        raise Stopped(number)

    numbers = [number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if not _is_ignored(number)]
    previous = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
