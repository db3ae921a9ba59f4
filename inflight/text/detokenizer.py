"""Token ids to text, a piece at a time, such that the pieces always join to the text of the whole sequence.

The text is the UTF-8 decoding of the tokens' bytes, invalid bytes as U+FFFD; the bytes of a character that is
not complete yet are held back. What a piece is depends on at most the PRECEDING_TOKENS tokens before it, so that a
stateless postprocessor can be right. Two rules make that exact for every token sequence:

- a special token ends a character, also where it is skipped (no tokenizer puts one inside a character);
- the space that begins a sentencepiece text is dropped only within the first PRECEDING_TOKENS tokens.
"""

import codecs
from collections.abc import Callable, Sequence

PRECEDING_TOKENS = 16  # kPrecedingTokens of backend/batch_manager/request.h
_INCOMPLETE_CHARACTER = 3  # bytes of a UTF-8 character that can be there without the character being complete


class Detokenizer:
    """Stateless and safe to share; see Tokenizer.detokenizer."""

    def __init__(self, token_bytes: Callable[[int], bytes | None], first_token_bytes: Callable[[int], bytes | None]):
        """Both functions give what a token id adds to the text, the second at the text's start, and None for a
        token that is no text: an id outside the vocabulary, or a special token that is to be skipped."""
        self._bytes = _Table(token_bytes)
        self._first_token_bytes = first_token_bytes

    def decode(self, tokens: Sequence[int], preceding: Sequence[int] = (), finished: bool = True) -> str:
        """The text that `tokens` add after `preceding`.

        tokens: any number of ids. preceding: the sequence's ids before them, at least the last PRECEDING_TOKENS
        (fewer only if there are no more). finished: no token follows; an incomplete character becomes U+FFFD
        rather than being held back.
        """
        preceding = preceding[-PRECEDING_TOKENS:]
        before = [self._bytes[token] for token in preceding]
        pieces = [self._bytes[token] for token in tokens]
        if all(piece is None for piece in before):
            self._begin_text(pieces, tokens, PRECEDING_TOKENS - len(before))
        data = _held_back(before)
        if None not in pieces:
            return codecs.utf_8_decode(data + b"".join(pieces), "replace", finished)[0]
        text = []
        for piece in pieces:
            if piece is None:
                text.append(data.decode(errors="replace"))
                data = b""
            else:
                data += piece
        text.append(codecs.utf_8_decode(data, "replace", finished)[0])
        return "".join(text)

    def _begin_text(self, pieces: list[bytes | None], tokens: Sequence[int], limit: int) -> None:
        for index, piece in enumerate(pieces[:limit]):
            if piece is not None:
                pieces[index] = self._first_token_bytes(tokens[index])
                return


def cut(text: str, num_bytes: int) -> str:
    """The text without so many bytes of UTF-8 at its end, as inflight._native.Response.num_cut_bytes counts them."""
    return text.encode()[: len(text.encode()) - num_bytes].decode() if num_bytes else text


class TextStream:
    """The text of one sequence whose tokens arrive a few at a time."""

    def __init__(self, detokenizer: Detokenizer):
        self._detokenizer = detokenizer
        self._preceding: list[int] = []

    def push(self, tokens: Sequence[int], finished: bool = False) -> str:
        """The text that these tokens add; see Detokenizer.decode."""
        text = self._detokenizer.decode(tokens, self._preceding, finished)
        self._preceding = [*self._preceding, *tokens][-PRECEDING_TOKENS:]
        return text


class _Table(dict):
    """Remembers a token's bytes after it was first asked for: loading a tokenizer need not visit 150,000 tokens."""

    def __init__(self, token_bytes: Callable[[int], bytes | None]):
        self._token_bytes = token_bytes

    def __missing__(self, token: int) -> bytes | None:
        piece = self._token_bytes(token)
        if piece is not None:  # ids outside the vocabulary are without number
            self[token] = piece
        return piece


def _held_back(pieces: Sequence[bytes | None]) -> bytes:
    """The incomplete character at the end of the tokens' bytes."""
    tail = b""
    for piece in reversed(pieces):
        if piece is None or len(tail) >= _INCOMPLETE_CHARACTER:
            break
        tail = piece + tail
    tail = tail[-_INCOMPLETE_CHARACTER:]
    return tail[codecs.utf_8_decode(tail, "replace", False)[1] :]
