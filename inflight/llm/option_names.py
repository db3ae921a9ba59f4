"""Options that nobody knows, answered with the one that was meant."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from functools import wraps
from typing import TypeVar

from inflight.errors import InflightError

_CLOSE = 0.85  # difflib's ratio; max_length and min_length, which differ in meaning, have 0.8

Options = TypeVar("Options")


def require_known_options(
    owner: str, names: Iterable[str], known: Iterable[str], advice: Mapping[str, str] | None = None
) -> None:
    """Raises InflightError for the first of `names` that `owner` does not have.

    advice: what to do instead of an option that another program has.
    """
    known = list(known)
    for name in names:
        if name in known:
            continue
        if advice and name in advice:
            raise InflightError(f"{owner} has no option {name}: {advice[name]}")
        if close := get_close_matches(name, [*known, *(advice or ())], 1, _CLOSE):
            hint = f" ({advice[close[0]]})" if advice and close[0] in advice else ""
            raise InflightError(f"{owner} has no option {name}; did you mean {close[0]}?{hint}")
        raise InflightError(f"{owner} has no option {name}; there are {', '.join(known)}")


def known_options_only(advice: Mapping[str, str]) -> Callable[[type[Options]], type[Options]]:
    """Makes a dataclass refuse keyword arguments that are no fields of it with an InflightError."""

    def decorate(options: type[Options]) -> type[Options]:
        initialize = options.__init__
        known = [field.name for field in fields(options)]  # type: ignore[arg-type]

        @wraps(initialize)
        def checked(self, *arguments, **keywords):
            require_known_options(options.__name__, keywords, known, advice)
            initialize(self, *arguments, **keywords)

        options.__init__ = checked  # type: ignore[assignment]
        return options

    return decorate
