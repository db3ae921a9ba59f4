"""The bytes that one token adds to the text, by the `decoder` of a tokenizer.json.

The decoders of the `tokenizers` library turn a whole token sequence into a string, which loses what a stream
needs: where a character that is split over several tokens stops. The decoders of language models are per-token
maps (and one rule for the first token), and these are written out here as such.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from inflight.errors import InflightError

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SUPPORTED = "ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Strip, and sequences of these"


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's bytes_to_unicode, inverted: printable bytes stand for themselves, the others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in printable)
    alphabet.update((chr(0x100 + index), byte) for index, byte in enumerate(others))
    return alphabet


_BYTE_LEVEL = _byte_level_alphabet()


def _from_byte_level(token: str) -> bytes:
    try:
        return bytes([_BYTE_LEVEL[character] for character in token])
    except KeyError:
        return token.encode()


@dataclass(frozen=True)
class TokenDecoder:
    """`decode(token)` is what a token adds to the text; `decode_first(token)` what it does at the text's start;
    `decode_added(token)` what one of added_tokens adds, whose content is plain text even in a byte-level vocabulary."""

    decode: Callable[[str], bytes]
    decode_first: Callable[[str], bytes]
    decode_added: Callable[[str], bytes]


def parse_decoder(decoder_json: str | bytes, source: str) -> TokenDecoder:
    """Reads the `decoder` object of `source` (a path, for the messages). Raises InflightError for a kind of
    decoder whose text is not the concatenation of its tokens' bytes."""
    steps = _flatten(json.loads(decoder_json))
    replacements: list[tuple[str, str]] = []
    stripped = ""
    byte_level = byte_fallback = drops_first_spaces = False
    for step in steps:
        match step:
            case {"type": "ByteLevel"}:
                byte_level = True
            case {"type": "ByteFallback"}:
                byte_fallback = True
            case {"type": "Fuse"}:
                pass
            case {"type": "Replace", "pattern": {"String": pattern}, "content": content}:
                replacements.append((pattern, content))
            case {"type": "Strip", "content": stripped, "start": 0 | 1 as start, "stop": 0}:
                stripped = stripped if start else ""
            case {"type": "Metaspace", "replacement": replacement, **options}:
                replacements.append((replacement, " "))
                drops_first_spaces = options.get("prepend_scheme", "always") != "never"
            case _:
                raise InflightError(
                    f"{source}: cannot stream text with the decoder {json.dumps(step, ensure_ascii=False)}; "
                    f"supported are {_SUPPORTED}"
                )

    def plain(token: str) -> bytes:
        for pattern, content in replacements:
            token = token.replace(pattern, content)
        return token.encode()

    def decode(token: str) -> bytes:
        if byte_level:
            return _from_byte_level(token)
        if byte_fallback and (match := _BYTE_TOKEN.fullmatch(token)):
            return bytes([int(match[1], 16)])
        return plain(token)

    def decode_first(token: str) -> bytes:
        if drops_first_spaces:
            return plain(token.replace(replacements[-1][0], ""))
        return decode(token).removeprefix(stripped.encode())

    return TokenDecoder(decode, decode_first, decode_added=plain)


def _flatten(decoder: dict | None) -> list[dict]:
    if decoder is None:
        return [{"type": None}]
    if decoder["type"] == "Sequence":
        return [step for inner in decoder["decoders"] for step in _flatten(inner)]
    return [decoder]
