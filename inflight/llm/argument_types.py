"""Arguments of the wrong type, refused by their names before anything is done with them."""

import os
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from inflight.errors import InflightError


def require_number(name: str, value: Any) -> None:
    if not isinstance(value, Real) or _is_flag(value):
        _fail(name, value, "a number")


def require_integer(name: str, value: Any, optional: bool = False) -> None:
    """optional: None will do."""
    if not (is_integer(value) or (optional and value is None)):
        _fail(name, value, "None or an integer" if optional else "an integer")


def require_flag(name: str, value: Any) -> None:
    if not _is_flag(value):
        _fail(name, value, "True or False")


def require_path(name: str, value: Any) -> Path:
    if not isinstance(value, (str, os.PathLike)) or value == "":  # which would be the current directory
        _fail(name, value, "a str or a Path")
    return Path(value)


def require_integers(name: str, values: Any) -> None:
    if not is_list(values) or not all(map(is_integer, values)):
        _fail(name, values, "a list of integers")


def require_text(name: str, value: Any, expected: str = "a str") -> None:
    if not isinstance(value, str):
        _fail(name, value, expected)
    require_unicode(name, value)


def require_texts(name: str, values: Any) -> None:
    if not is_list(values) or not all(isinstance(value, str) for value in values):
        _fail(name, values, "a list of strings")
    for value in values:
        require_unicode(name, value)


def require_unicode(name: str, text: str) -> None:
    """Refuses lone surrogates, which a str can hold but no text has."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = f"the lone surrogate {text[error.start]!r} at position {error.start}"
        raise InflightError(f"{name} is not valid Unicode text: it has {found}") from None


def is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not _is_flag(value)


def is_list(value: Any) -> bool:
    """A list, a tuple, a numpy array or the like; not a string."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))


def _is_flag(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_))


def _fail(name: str, value: Any, expected: str) -> NoReturn:
    raise InflightError(f"{name} is {value!r}; it must be {expected}")
