"""Model templates: config.pbtxt files with variables, `${name}` or `${name | default(value)}` (jinja2).

A variable may stay unfilled in a parameter's string_value: the model that reads it takes a value that begins with
`${` as the default, which upstream's templates leave unsaid. Only the directories that a model cannot start without
must be filled. Everywhere else Triton reads the value, so there a variable without a default is required, and a default
is written as soon as the template is filled.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, StrictUndefined, TemplateError

from inflight.errors import InflightError

_VARIABLE = re.compile(r"\$\{\s*(?P<name>[A-Za-z_]\w*)\s*(?:\|[^{}]*)?\}")
_STRING_OR_COMMENT = re.compile(r'(?P<parameter>string_value:\s*)?"(?:[^"\\\n]|\\.)*"|(?P<comment>#)[^\n]*')
_REQUIRED_DIRECTORIES = ("engine_dir", "tokenizer_dir")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_OUTSIDE_STRINGS = re.compile(r"""["'#\\\x00-\x1f]""")
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\0": r"\000"})
_environment = Environment(
    variable_start_string="${",
    variable_end_string="}",
    block_start_string="<%",
    block_end_string="%>",
    comment_start_string="<#",
    comment_end_string="#>",
    undefined=StrictUndefined,
)


@dataclass(frozen=True)
class Variable:
    """A variable of a template. default: None where the template gives none. read_by_triton: it stands outside of
    string_value in at least one place, so that Triton cannot read the file before it has a value."""

    name: str
    default: str | None
    read_by_triton: bool

    @property
    def required(self) -> bool:
        return self.default is None and (self.read_by_triton or self.name in _REQUIRED_DIRECTORIES)


@dataclass
class Filled:
    """A filled template."""

    text: str
    unfilled: list[Variable]  # still in the text
    defaulted: list[Variable]  # not given, their default written
    unknown: list[str]  # given, but not in the template


def template_variables(text: str) -> list[Variable]:
    """Every variable of the template, in order."""
    variables: dict[str, Variable] = {}
    for match, place in _places(text):
        name, default = match["name"], _default_of(match.group())
        known = variables.get(name, Variable(name, default, False))
        variables[name] = Variable(name, known.default, known.read_by_triton or place.read_by_triton)
    return list(variables.values())


def fill(text: str, values: Mapping[str, object], resolve_defaults: bool = False) -> Filled:
    """Replaces the variables that have a value; see the module about the others.

    values: a bool becomes true or false, anything else its str(), escaped where it stands in a string. An empty value
    that Triton would read counts as not given. resolve_defaults: every default is written. Raises InflightError for a
    value that cannot stand in its place.
    """
    replacements: dict[str, str] = {}
    unfilled, defaulted = [], []
    variables = template_variables(text)
    for variable in variables:
        value = _spell(values[variable.name]) if variable.name in values else None
        if value is not None and not (value == "" and variable.read_by_triton):
            replacements[variable.name] = value
        elif variable.default is not None and (variable.read_by_triton or resolve_defaults):
            replacements[variable.name] = variable.default
            defaulted.append(variable)
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
    for item in _split_unescaped(text):
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


@cache
def _default_of(expression: str) -> str | None:
    if "|" not in expression:
        return None
    try:
        return _environment.from_string(expression).render()
    except TemplateError as error:
        raise InflightError(f"template variable {expression}: {error}") from error


def _spell(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _split_unescaped(text: str) -> list[str]:
    items, current = [], ""
    characters = iter(text)
    for character in characters:
        if character == "\\":
            following = next(characters, "")
            current += following if following in (",", "\\") else character + following
        elif character == ",":
            items.append(current)
            current = ""
        else:
            current += character
    return [item for item in [*items, current] if item.strip()]
