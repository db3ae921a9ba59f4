#!/usr/bin/env python3
"""Fills ${variables} of a config.pbtxt template: fill_template.py [-i] TEMPLATE 'key:value,key:value'."""

import argparse
import sys
from pathlib import Path

try:
    import inflight  # noqa: F401  installed, or else beside this file in the source tree
except ModuleNotFoundError:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from inflight.errors import InflightError
from inflight.repository.template import Filled, Variable, fill, parse_substitutions, split, template_variables
from inflight.repository.unserved_values import WITHOUT_EFFECT

__all__ = ["split"]  # which upstream's tool has, too


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file_path", type=Path, metavar="TEMPLATE", help="the config.pbtxt to fill")
    parser.add_argument("substitutions", help="key:value,key:value…; a comma inside a value is written \\,")
    parser.add_argument("-i", "--in_place", action="store_true", help="change the file instead of printing the result")
    options = parser.parse_args()
    try:
        text = options.file_path.read_text(encoding="utf-8")
        substitutions = parse_substitutions(options.substitutions)
        filled = fill(text, substitutions)
    except (InflightError, OSError, UnicodeDecodeError) as error:
        print(f"fill_template: {error}", file=sys.stderr)
        return 1
    report(options.file_path, filled, template_variables(text))
    for name, reason in WITHOUT_EFFECT.get(options.file_path.absolute().parent.name, {}).items():
        if substitutions.get(name):
            print(f"{options.file_path}: {name} has no effect: {reason}", file=sys.stderr)
    if options.in_place:
        options.file_path.write_text(filled.text, encoding="utf-8")
    else:
        print(filled.text, end="")
    return 0


def report(path: Path, filled: Filled, variables: list[Variable]) -> None:
    """Says on stderr which variables were not given, and which keys the template does not have."""
    for variable in filled.unfilled:
        if variable.required:
            print(f"{path}: ${{{variable.name}}} is required and left unfilled", file=sys.stderr)
    optional = [variable for variable in filled.unfilled if not variable.required]
    if optional:
        names = ", ".join(variable.name for variable in optional)
        print(f"{path}: left unfilled, which means the default: {names}", file=sys.stderr)
    if filled.defaulted:
        values = ", ".join(f"{variable.name} ({variable.default})" for variable in filled.defaulted)
        print(f"{path}: filled with the default: {values}", file=sys.stderr)
    if filled.unknown:
        names = ", ".join(variable.name for variable in variables) or "none"
        print(f"{path}: no such variable: {', '.join(filled.unknown)}; the file has {names}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
