"""Ends a text at the first stop string, while the text is still coming."""

from collections.abc import Sequence


class StopStringFilter:
    """Passes text on, except what is or may become a stop string.

    The match that ends first wins, and of those the longest: the result does not depend on how the text was cut
    into pieces.
    """

    def __init__(self, stop_strings: Sequence[str]):
        self._stop_strings = stop_strings
        self._held_back = ""
        self.matched: str | None = None

    def push(self, text: str, finished: bool = False) -> str:
        """The text that can be passed on now. finished: no more text follows. After a match: nothing."""
        if self.matched is not None:
            return ""
        text = self._held_back + text
        matches = [(start + len(stop), start, stop) for stop in self._stop_strings if (start := text.find(stop)) >= 0]
        if matches:
            _, start, self.matched = min(matches)
            self._held_back = ""
            return text[:start]
        held = 0 if finished else self._possible_start(text)
        self._held_back = text[len(text) - held :]
        return text[: len(text) - held]

    def pass_on(self, text: str) -> str:
        """Text in which a stop string does not count, not even its start."""
        text, self._held_back = self._held_back + text, ""
        return text

    def _possible_start(self, text: str) -> int:
        """How many characters at the end of `text` may be the start of a stop string."""
        longest = max(map(len, self._stop_strings), default=1) - 1
        return next(
            (
                size
                for size in range(min(longest, len(text)), 0, -1)
                if any(stop.startswith(text[-size:]) for stop in self._stop_strings)
            ),
            0,
        )
