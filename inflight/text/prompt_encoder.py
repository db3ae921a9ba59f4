"""Prompts to token ids, in a time and memory that what the engine takes bounds, not what a client sends."""

from dataclasses import dataclass

from inflight.errors import InflightError
from inflight.text.tokenizer import Tokenizer

_UNKNOWN_ENGINE_BYTES = 2**22  # where nothing says how long a sequence may be
_USUAL_TOKEN = 8  # characters that few texts have more of in a token, on the average


@dataclass(frozen=True)
class PromptLimits:
    """max_tokens: the engine's max_seq_len, None where it is not known. max_bytes: of a prompt's text; None for what
    can be of use: max_tokens of the tokenizer's longest token."""

    max_tokens: int | None = None
    max_bytes: int | None = None


class PromptEncoder:
    """Tokenizes prompts that may fit into the engine; refuses the others before they take time and memory.

    A text of 8 MB took a tokenizer 11 s and 1.2 GB. Where the text is long for the engine's max_tokens, a part of it is
    tokenized first: a part that already has twice as many cannot become a prompt that fits.
    """

    def __init__(self, tokenizer: Tokenizer, limits: PromptLimits):
        self._tokenizer = tokenizer
        self._max_tokens = limits.max_tokens
        self._max_bytes = limits.max_bytes or _useful_bytes(tokenizer, limits.max_tokens)
        self._bytes_are_tokens = limits.max_bytes is None and limits.max_tokens is not None

    def check_size(self, name: str, text: bytes) -> None:
        """Raises InflightError for a text that is too large to be looked at. name: what the error calls it."""
        if len(text) <= self._max_bytes:
            return
        if self._bytes_are_tokens and self._max_tokens is not None:
            raise InflightError(
                f"{name} has {len(text)} bytes; this engine takes at most {self._max_tokens - 1} tokens, and they are"
                f" no more than {self._max_bytes} bytes: send a shorter one, or rebuild the engine with a larger"
                " --max-seq-len; max_text_bytes in the config.pbtxt of preprocessing sets another limit"
            )
        raise InflightError(
            f"{name} has {len(text)} bytes; at most {self._max_bytes} are tokenized: send a shorter one, or raise"
            " max_text_bytes in the config.pbtxt of preprocessing"
        )

    def encode(self, name: str, text: str, add_special_tokens: bool) -> list[int]:
        """The ids of `text`. Raises InflightError where they are far too many for the engine."""
        if self._max_tokens is not None:
            part = self._max_tokens * _USUAL_TOKEN
            while part < len(text):
                if (count := len(self._tokenizer.encode(text[:part], False))) > 2 * self._max_tokens:
                    raise InflightError(
                        f"{name} has more than {count} tokens; this engine takes at most {self._max_tokens - 1}: send a"
                        " shorter one, or rebuild the engine with a larger --max-seq-len"
                    )
                part *= 2
        return self._tokenizer.encode(text, add_special_tokens)


def _useful_bytes(tokenizer: Tokenizer, max_tokens: int | None) -> int:
    return _UNKNOWN_ENGINE_BYTES if max_tokens is None else max_tokens * max(tokenizer.longest_token_bytes, 1)
