"""The one exception type for what a user can fix."""


class InflightError(Exception):
    """Says what was wrong, where, and what to do about it."""
