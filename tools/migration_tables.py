#!/usr/bin/env python3
"""Writes the tables of docs/migration.md that the code holds the facts of: migration_tables.py [--check] FILE."""

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from inflight.launcher.options import add_upstream_arguments
from inflight.repository.generate import MODELS
from inflight.repository.template import find_templates, template_variables
from inflight.repository.unserved_values import REFUSED, WITHOUT_EFFECT

_UNSERVED = next((Path(__file__).parents[1] / "backend" / "triton").rglob("unserved_parameters.cc"))
_PARAMETER = re.compile(r'parameters { key: "(\w+)"  value { string_value: "\${(\w+)}" } }')
_TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(\n<!-- end -->)", re.DOTALL)


def variables_table() -> list[str]:
    """Every variable of the templates that upstream's have too, and what becomes of its value."""
    rows = ["| model | variable | |", "|---|---|---|"]
    for model in MODELS:
        text = (find_templates() / model / "config.pbtxt").read_text(encoding="utf-8")
        parameter_of = {variable: parameter for parameter, variable in _PARAMETER.findall(text)}
        for variable in template_variables(text):
            meaning = _meaning(model, variable.name, parameter_of.get(variable.name, variable.name))
            default = f"; {variable.default} unless given" if variable.default else ""
            rows.append(f"| {model} | `{variable.name}` | {meaning}{default} |")
    return rows


def _meaning(model: str, variable: str, parameter: str) -> str:
    if reason := REFUSED.get(model, {}).get(variable):
        return f"refused: {reason}"
    if reason := WITHOUT_EFFECT.get(model, {}).get(variable):
        return f"no effect: {reason}"
    if model == "tensorrt_llm":
        if (accepted := _fixed_parameters().get(parameter)) is not None:
            return f"refused, unless it is {' or '.join(['empty', *(f'`{value}`' for value in accepted)])}"
        if parameter in _ignored_parameters():
            return "no effect on this engine"
    return "honored"


def _fixed_parameters() -> dict[str, list[str]]:
    table = _between("kFixedParameters[] = {", "\n};")
    return {name: re.findall(r'"([^"]+)"', values) for name, values in re.findall(r'{"(\w+)", {(.*?)}}', table)}


def _ignored_parameters() -> list[str]:
    return re.findall(
        r'"(\w+)"', _between("kIgnoredParameters[] = {", "};") + _between("kSilentParameters[] = {", "};")
    )


def _between(start: str, end: str) -> str:
    return _UNSERVED.read_text(encoding="utf-8").partition(start)[2].partition(end)[0]


def options_table() -> list[str]:
    """The options of upstream's launcher."""
    parser = argparse.ArgumentParser(add_help=False)
    add_upstream_arguments(parser)
    rows = ["| option | |", "|---|---|"]
    for group in parser._action_groups:
        without_effect = group.title is not None and "without effect" in group.title
        for action in group._group_actions:
            meaning = "no effect" if without_effect else (action.help or "").replace("|", "\\|")
            rows.append(f"| {', '.join(f'`{flag}`' for flag in action.option_strings)} | {meaning} |")
    return rows


TABLES = {"variables": variables_table, "options": options_table}


def with_tables(text: str) -> str:
    return _TABLE.sub(lambda match: match[1] + _joined(TABLES[match[2]]()) + match[3], text)


def _joined(rows: Iterable[str]) -> str:
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--check", action="store_true", help="say whether the file is as it would be written")
    options = parser.parse_args()
    text = options.file.read_text(encoding="utf-8")
    new = with_tables(text)
    if options.check:
        return int(new != text)
    options.file.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
