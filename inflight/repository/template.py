"""Model templates: config.pbtxt files with variables, `${name}`.

A variable may stay unfilled in a parameter's string_value: the model that reads it takes a value that begins with
`${` as the default, as upstream's templates have it. Only the directories that a model cannot start without must be
filled. Everywhere else Triton reads the value: there a variable must have one, and tools/fill_template.py writes that
of model_templates/defaults.json where none is given.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import inflight
from inflight.errors import InflightError

_DEFAULTS = "defaults.json"
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_]\w*)\}")
_STRING_OR_COMMENT = re.compile(r'(?P<parameter>string_value:\s*)?"(?:[^"\\\n]|\\.)*"|(?P<comment>#)[^\n]*')
_IN_PYTHON = re.compile(r'^\s*backend:\s*"python"', re.MULTILINE)
_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_OUTSIDE_STRINGS = re.compile(r"""["'#\\\x00-\x1f]""")
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\0": r"\000"})


@dataclass(frozen=True)
class Variable:
    """A variable of a template. read_by_triton: it stands outside of string_value in at least one place, so that
    Triton cannot read the file before it has a value. default: that value, None where there is no usual one. required:
    the model cannot start without a value."""

    name: str
    read_by_triton: bool
    default: str | None
    required: bool


@dataclass
class Filled:
    """A filled template."""

    text: str
    unfilled: list[Variable]  # still in the text
    defaulted: list[Variable]  # not given, their default written
    unknown: list[str]  # given, but not in the template


def find_templates(name: str = "model_templates") -> Path:
    """The directory of that name: of the installed package, or of the source tree around it."""
    for package in map(Path, inflight.__path__):
        for directory in (package / name, package.parent / name):
            if (directory / "tensorrt_llm" / "config.pbtxt").is_file():
                return directory
    raise InflightError(f"{name} is not in the installed inflight package: install it with `pip install .`")


@cache
def template_defaults() -> Mapping[str, str]:
    """What stands for a variable that Triton reads and that nobody gives, by its name."""
    return json.loads((find_templates() / _DEFAULTS).read_text(encoding="utf-8"))


def split(text: str, delimiter: str) -> list[str]:
    """The parts of `text` between delimiters; a backslash makes a part of what follows it."""
    parts, current = [], ""
    characters = iter(text)
    for character in characters:
        if character == "\\":
            current += next(characters, "")
        elif character == delimiter:
            parts.append(current)
            current = ""
        else:
            current += character
    return [*parts, current]


def template_variables(text: str) -> list[Variable]:
    """Every variable of the template, in order."""
    read_by_triton: dict[str, bool] = {}
    for match, place in _places(text):
        name = match["name"]
        read_by_triton[name] = read_by_triton.get(name, False) or place.read_by_triton
    directory = "tokenizer_dir" if _IN_PYTHON.search(text) else "engine_dir"
    return [_variable(name, triton, name == directory) for name, triton in read_by_triton.items()]


def fill(text: str, values: Mapping[str, object], leave_parameters: bool = True) -> Filled:
    """Replaces the variables that have a value; see the module about the others.

    values: a bool becomes true or false, anything else its str(), escaped where it stands in a string. An empty value
    that Triton would read counts as not given. leave_parameters: variables in a string_value may stay; otherwise the
    value of those that are not required is empty. Raises InflightError for a value that cannot stand in its place.
    """
    replacements: dict[str, str] = {}
    unfilled, defaulted = [], []
    variables = template_variables(text)
    for variable in variables:
        value = _spell(values[variable.name]) if variable.name in values else None
        if value is not None and not (value == "" and variable.read_by_triton):
            replacements[variable.name] = value
        elif variable.default is not None:
            replacements[variable.name] = variable.default
            defaulted.append(variable)
        elif not leave_parameters and not variable.required:
            replacements[variable.name] = ""
        else:
            unfilled.append(variable)
    pieces, end = [], 0
    for match, place in _places(text):
        name = match["name"]
        value = place.write(name, replacements[name]) if name in replacements else match.group()
        pieces += [text[end : match.start()], value]
        end = match.end()
    unknown = sorted(set(values) - {variable.name for variable in variables})
    return Filled("".join([*pieces, text[end:]]), unfilled, defaulted, unknown)


def parse_substitutions(text: str) -> dict[str, str]:
    """Reads `key:value,key:value…`; values may hold colons, and commas written `\\,`. Raises InflightError."""
    substitutions = {}
    for item in split(text, ","):
        if not item.strip():
            continue
        key, colon, value = item.partition(":")
        if not colon or not key.strip():
            raise InflightError(f"{item!r} is not of the form key:value (a comma inside a value is written \\,)")
        substitutions[key.strip()] = value.replace("\\:", ":")
    return substitutions


@dataclass(frozen=True)
class _Place:
    """Where a variable stands: in a string or not, in a parameter's string_value or where Triton reads it."""

    quoted: bool
    read_by_triton: bool

    def write(self, name: str, value: str) -> str:
        """`value` as protobuf's text format has it here. Raises InflightError."""
        if _SURROGATE.search(value):
            raise InflightError(f"{name} is {value!r}, which is not valid Unicode text")
        if not self.quoted and (bad := _NOT_OUTSIDE_STRINGS.search(value)):
            raise InflightError(f"{name} is {value!r}; its place in the template takes no {bad.group()!r}")
        return value.translate(_ESCAPES) if self.quoted else value


def _places(text: str) -> Iterator[tuple[re.Match, _Place]]:
    """Every variable and where it stands; comments have none."""
    strings = list(_STRING_OR_COMMENT.finditer(text))
    for match in _VARIABLE.finditer(text):
        inside = next((string for string in strings if string.start() <= match.start() < string.end()), None)
        if inside is None:
            yield match, _Place(quoted=False, read_by_triton=True)
        elif not inside["comment"]:
            yield match, _Place(quoted=True, read_by_triton=not inside["parameter"])


def _variable(name: str, read_by_triton: bool, is_directory: bool) -> Variable:
    default = template_defaults().get(name) if read_by_triton else None
    return Variable(name, read_by_triton, default, default is None and (read_by_triton or is_directory))


def _spell(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
