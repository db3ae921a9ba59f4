"""How many words a request may bring."""

from collections.abc import Sequence
from dataclasses import dataclass

from inflight import _native
from inflight.errors import InflightError


@dataclass(frozen=True)
class WordLimits:
    """Of each list of words of a request. The defaults are the batch manager's.

    max_words: words in the list. max_words_length: bytes of all of them together. Of words as
    tokens, the batch manager takes twice as many and as long, since each may come in two spellings.
    """

    max_words: int = _native.DEFAULT_MAX_WORDS
    max_words_length: int = _native.DEFAULT_MAX_WORDS_LENGTH

    def check(self, name: str, words: Sequence[bytes | str]) -> None:
        """Raises InflightError, naming the list and the option, for more than that."""
        if len(words) > self.max_words:
            raise InflightError(
                f"{name} has {len(words)} words; at most {self.max_words} are taken: send fewer, or give the server a "
                "larger max_words"
            )
        length = sum(len(word if isinstance(word, bytes) else word.encode()) for word in words)
        if length > self.max_words_length:
            raise InflightError(
                f"the words of {name} have {length} bytes together; at most {self.max_words_length} are taken: send "
                "fewer or shorter ones, or give the server a larger max_words_length"
            )
