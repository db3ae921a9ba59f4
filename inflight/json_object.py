"""Typed access to a JSON object, with errors that name the file and the field."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inflight.errors import InflightError


class JsonObject:
    """A JSON object and where it comes from.

    Every accessor raises InflightError naming file, field, expected and found when the field is missing or
    has another type or range.
    """

    def __init__(self, values: Any, origin: str):
        if not isinstance(values, dict):
            raise InflightError(f"{origin}: expected a JSON object, found {type(values).__name__}")
        self.values = values
        self.origin = origin

    @classmethod
    def load(cls, path: Path) -> "JsonObject":
        """Reads a file. Raises InflightError when it cannot be read or is not a JSON object."""
        try:
            return cls(json.loads(path.read_text(encoding="utf-8")), str(path))
        except OSError as error:
            raise InflightError(f"cannot read {path}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise InflightError(f"{path} is not JSON: {error}") from error

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def expect_format(self, name: str, version: int, command: str) -> None:
        """Raises InflightError unless `format` and `version` are these; `command` is what writes such a file."""
        if self.values.get("format") != name:
            self.fail("format", f"{name!r}: was this made by `{command}`?")
        if self.values.get("version") != version:
            self.fail("version", f"{version}: run `{command}` again with this version of inflight")

    def fail(self, name: str, expected: str) -> None:
        """Raises the InflightError for a field that is not what was expected."""
        found = f"is {self.values[name]!r}" if name in self.values else "is missing"
        raise InflightError(f"{self.origin}: {name} {found}; expected {expected}")

    def integer(self, name: str, minimum: int = 0) -> int:
        value = self._value(name)
        if not _is_integer(value, minimum):
            self.fail(name, f"an integer of at least {minimum}")
        return value

    def optional_integer(self, name: str, minimum: int = 0) -> int | None:
        """None for a field that is missing or null."""
        return None if self.values.get(name) is None else self.integer(name, minimum)

    def number(self, name: str, above: float = 0.0) -> float:
        value = self._value(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not above < value < math.inf:
            self.fail(name, f"a number above {above:g}")
        return float(value)

    def boolean(self, name: str) -> bool:
        value = self._value(name)
        if not isinstance(value, bool):
            self.fail(name, "true or false")
        return value

    def choice(self, name: str, choices: Sequence[Any]) -> Any:
        value = self._value(name)
        if value not in choices:
            self.fail(name, "one of " + ", ".join(map(str, choices)))
        return value

    def integers(self, name: str, length: int | None = None, minimum: int = 0) -> list[int]:
        value = self._value(name)
        if (
            not isinstance(value, list)
            or not all(_is_integer(item, minimum) for item in value)
            or length not in (None, len(value))
        ):
            self.fail(name, f"a list of {'' if length is None else f'{length} '}integers of at least {minimum}")
        return value

    def object(self, name: str) -> "JsonObject":
        value = self._value(name)
        if not isinstance(value, dict):
            self.fail(name, "a JSON object")
        return JsonObject(value, f"{self.origin}: {name}")

    def _value(self, name: str) -> Any:
        if name not in self.values:
            raise InflightError(f"{self.origin}: {name} is missing")
        return self.values[name]


def format_of(directory: Path) -> str | None:
    """The `format` that DIRECTORY/config.json gives; None where it gives none or is not there. Raises InflightError
    when it is not a JSON object."""
    path = directory / "config.json"
    return JsonObject.load(path).values.get("format") if path.is_file() else None


def _is_integer(value: Any, minimum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum
