"""python -m inflight.bench engine|serve: speed of an engine alone, or of a running server under load."""

import argparse
import sys

from inflight.bench import engine, serve
from inflight.errors import InflightError

BENCHMARKS = {"engine": engine, "serve": serve}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m inflight.bench", description=__doc__)
    subparsers = parser.add_subparsers(dest="benchmark", required=True)
    for name, module in BENCHMARKS.items():
        summary = (module.__doc__ or "").splitlines()[0]
        subparser = subparsers.add_parser(
            name, help=summary, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    options = parser.parse_args()
    try:
        return options.run(options)
    except InflightError as error:
        print(f"inflight.bench {options.benchmark}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
