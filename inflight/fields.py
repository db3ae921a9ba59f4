"""Typed access to the fields of a file: what every reader of JSON and of GGUF metadata checks them with."""

import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from inflight.errors import InflightError

MAX_INTEGER = 2**31 - 1  # of a size or a token id, as in the C++ engine
_REQUIRED = object()


class Fields:
    """Named values and where they come from.

    Every accessor raises InflightError naming origin, field, expected and found when the field is missing or has
    another type or range. With a `default`, a field that is missing or null gives that. `prefix` stands before the
    name of every field.
    """

    def __init__(self, values: Mapping[str, Any], origin: str, prefix: str = ""):
        self.values = values
        self.origin = origin
        self.prefix = prefix

    def __contains__(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.values.get(self.prefix + name) is not None

    def fail(self, name: str, expected: str) -> NoReturn:
        """Raises the InflightError for a field that is not what was expected."""
        key = self.prefix + name
        found = f"is {_short(self.values[key])}" if key in self.values else "is missing"
        raise InflightError(f"{self.origin}: {key} {found}; expected {expected}")

    def integer(self, name: str, minimum: int = 0, maximum: int = MAX_INTEGER, default: Any = _REQUIRED) -> Any:
        value = self._value(name, default)
        if value is not default and not _is_integer(value, minimum, maximum):
            self.fail(name, f"an integer {_range(minimum, maximum)}")
        return value

    def number(self, name: str, above: float = 0.0, below: float = math.inf, default: Any = _REQUIRED) -> Any:
        """A float between the bounds, which are themselves excluded."""
        value = self._value(name, default)
        if value is default:
            return value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not above < value < below:
            self.fail(name, f"a number above {above:g}" + (f" and below {below:g}" if below < math.inf else ""))
        try:
            return float(value)
        except OverflowError:
            self.fail(name, "a number that float64 holds")

    def boolean(self, name: str, default: Any = _REQUIRED) -> Any:
        value = self._value(name, default)
        if value is not default and not isinstance(value, bool):
            self.fail(name, "true or false")
        return value

    def text(self, name: str, default: Any = _REQUIRED) -> Any:
        value = self._value(name, default)
        if value is not default and not isinstance(value, str):
            self.fail(name, "a string")
        return value

    def choice(self, name: str, choices: Sequence[Any], default: Any = _REQUIRED) -> Any:
        value = self._value(name, default)
        if value is not default and not any(type(value) is type(choice) and value == choice for choice in choices):
            self.fail(name, "one of " + ", ".join(map(str, choices)))
        return value

    def integers(
        self,
        name: str,
        length: int | None = None,
        minimum: int = 0,
        maximum: int = MAX_INTEGER,
        default: Any = _REQUIRED,
    ) -> Any:
        value = self._value(name, default)
        if value is not default and (
            not isinstance(value, list)
            or not all(_is_integer(item, minimum, maximum) for item in value)
            or length not in (None, len(value))
        ):
            self.fail(name, f"a list of {'' if length is None else f'{length} '}integers {_range(minimum, maximum)}")
        return value

    def texts(self, name: str, default: Any = _REQUIRED) -> Any:
        value = self._value(name, default)
        if value is not default and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            self.fail(name, "a list of strings")
        return value

    def numbers(self, name: str, length: int, default: Any = _REQUIRED) -> Any:
        """A NumPy array of `length` numbers, none of them NaN."""
        value = self._value(name, default)
        if value is not default:
            is_array = isinstance(value, np.ndarray) and value.dtype.kind in "iuf" and value.shape == (length,)
            if not is_array or np.isnan(value).any():
                self.fail(name, f"{length} numbers")
        return value

    def _value(self, name: str, default: Any = _REQUIRED) -> Any:
        key = self.prefix + name
        value = self.values.get(key, _REQUIRED)
        if value is None and default is not _REQUIRED:
            return default
        if value is not _REQUIRED:
            return value
        if default is _REQUIRED:
            raise InflightError(f"{self.origin}: {key} is missing")
        return default


def _is_integer(value: Any, minimum: int, maximum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum


def _range(minimum: int, maximum: int) -> str:
    return f"of at least {minimum}" if maximum >= MAX_INTEGER else f"of {minimum} to {maximum}"


_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 100
_repr.maxlong = 40


def _short(value: Any) -> str:
    """One line, whatever the size of the value."""
    return " ".join(_repr.repr(value).split())
