"""The one exception type for what a user can fix."""

_LONGEST_CAUSE = 300  # characters


class InflightError(Exception):
    """Says what was wrong, where, and what to do about it.

    code: what kind of failure it is, named like the C++ code's (backend/common/error.h): "invalid_argument",
    "not_found", "unavailable", "unsupported", "cancelled", "internal" or "engine_lost".
    """

    def __init__(self, message: str, code: str = "invalid_argument"):
        super().__init__(message)
        self.code = code


def cause(error: BaseException | str) -> str:
    """What another library's exception says, on one line of a readable length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_CAUSE else text[:_LONGEST_CAUSE] + " …"
