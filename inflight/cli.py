"""The `inflight` command: convert, build, check, repo, serve. Each subcommand's module is imported when it is used."""

import argparse
import importlib
import sys

COMMANDS = {
    "convert": ("inflight.checkpoint.command", "Hugging Face directory or GGUF file → checkpoint"),
    "build": ("inflight.engine.command", "checkpoint → engine, after printing the memory plan"),
    "check": ("inflight.engine.check_command", "whether the files of an engine or a checkpoint are undamaged"),
    "repo": ("inflight.repository.command", "engine → Triton model repository"),
    "serve": ("inflight.launcher.serve_command", "model repository or engine → running server"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs one subcommand and returns its exit status, if it has one; bad input ends in one line on stderr and 1."""
    from inflight.errors import InflightError

    parser = argparse.ArgumentParser(prog="inflight", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True)
    arguments = sys.argv[1:] if argv is None else argv
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


if __name__ == "__main__":
    sys.exit(main())
