"""The `inflight` command: convert, build, check, repo. Each subcommand's module is imported when it is used."""

import argparse
import importlib
import sys

COMMANDS = {
    "convert": ("inflight.checkpoint.command", "Hugging Face directory or GGUF file → checkpoint"),
    "build": ("inflight.engine.command", "checkpoint → engine, after printing the memory plan"),
    "check": ("inflight.engine.check_command", "whether the files of an engine or a checkpoint are undamaged"),
    "repo": ("inflight.repository.command", "engine → Triton model repository"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs one subcommand; bad input ends in one line on stderr and exit status 1."""
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
        options.run(options)
    except InflightError as error:
        print(f"inflight {options.command}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
