"""A JSON object of a file, as typed fields."""

import json
from pathlib import Path
from typing import Any

from inflight.errors import InflightError, cause
from inflight.fields import Fields


class JsonObject(Fields):
    """See Fields. Raises InflightError when the values are not an object."""

    def __init__(self, values: Any, origin: str):
        if not isinstance(values, dict):
            raise InflightError(f"{origin}: expected a JSON object, found {type(values).__name__}")
        super().__init__(values, origin)

    @classmethod
    def load(cls, path: Path) -> "JsonObject":
        """Reads a file. Raises InflightError when it cannot be read or is not a JSON object."""
        return cls(load_json(path), str(path))

    @classmethod
    def load_optional(cls, path: Path) -> "JsonObject":
        """The same for a file that need not be there: without fields then."""
        return cls.load(path) if path.is_file() else cls({}, str(path))

    def expect_format(self, name: str, version: int, command: str) -> None:
        """Raises InflightError unless `format` and `version` are these; `command` is what writes such a file."""
        if self.values.get("format") != name:
            self.fail("format", f"{name!r}: was this made by `{command}`?")
        if self.values.get("version") != version:
            self.fail("version", f"{version}: run `{command}` again with this version of inflight")

    def object(self, name: str) -> "JsonObject":
        value = self._value(name)
        if not isinstance(value, dict):
            self.fail(name, "a JSON object")
        return JsonObject(value, f"{self.origin}: {name}")

    def objects(self, name: str) -> "list[JsonObject]":
        value = self._value(name)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.fail(name, "a list of JSON objects")
        return [JsonObject(item, f"{self.origin}: {name}") for item in value]


def load_json(path: Path) -> Any:
    """What a JSON file holds. Raises InflightError when it cannot be read or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InflightError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InflightError(f"{path} is not JSON: {cause(error)}") from error


def format_of(directory: Path) -> Any:
    """The `format` that DIRECTORY/config.json gives; None where it gives none or is not there. Raises InflightError
    when it is not a JSON object."""
    return JsonObject.load_optional(directory / "config.json").values.get("format")
