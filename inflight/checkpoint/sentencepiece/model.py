"""SentencePiece's tokenizer.model, read without its library: the few fields of the protocol buffer we need.

https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inflight.checkpoint.sentencepiece.bpe import PieceType
from inflight.errors import InflightError, cause

_LONGEST_PIECE = 4096  # bytes; a damaged length must not cost a minute of cutting it up
_BPE = 2  # TrainerSpec.ModelType
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


@dataclass
class SentencePieceModel:
    """tokens, scores, types: one entry for each id. adds_space: before a text (add_dummy_prefix)."""

    tokens: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    adds_space: bool = True

    @classmethod
    def load(cls, path: Path) -> "SentencePieceModel":
        """Raises InflightError for a damaged file, a model that is not BPE, or one that normalizes its text."""
        model = cls()
        removes_spaces, character_map, kind = True, b"", 1
        try:
            for number, value in _fields(path.read_bytes()):
                if number == 1:
                    model._add_piece(_message(value))
                elif number == 2:
                    kind = _field(_message(value), 3, int, kind)
                elif number == 3:
                    normalizer = _message(value)
                    character_map = _field(normalizer, 2, bytes, b"")
                    model.adds_space = bool(_field(normalizer, 3, int, True))
                    removes_spaces = bool(_field(normalizer, 4, int, True))
        except OSError as error:
            raise InflightError(f"cannot read {path}: {error.strerror}") from error
        except (ValueError, IndexError, struct.error) as error:
            raise InflightError(f"{path} is not a SentencePiece model: {cause(error)}") from error
        if not model.tokens:
            raise InflightError(f"{path} is not a SentencePiece model: it has no pieces")
        if kind != _BPE or removes_spaces or character_map:
            raise InflightError(
                f"{path} is not a plain BPE model as Llama's and Mistral's: "
                "save the tokenizer as tokenizer.json with transformers first"
            )
        return model

    def _add_piece(self, piece: dict[int, int | bytes]) -> None:
        text = _field(piece, 1, bytes, b"")
        if len(text) > _LONGEST_PIECE:
            raise ValueError(f"a piece has {len(text)} bytes")
        self.tokens.append(text.decode())
        self.scores.append(struct.unpack("<f", _field(piece, 2, bytes, bytes(4)))[0])
        self.types.append(_field(piece, 3, int, int(PieceType.NORMAL)))


def _message(value: int | bytes) -> dict[int, int | bytes]:
    """The fields of a message inside of another; of those that repeat the last."""
    if not isinstance(value, bytes):
        raise ValueError("a number stands in the place of a message")
    return dict(_fields(value))


def _field(message: dict[int, int | bytes], number: int, kind: type, default: Any) -> Any:
    value = message.get(number, default)
    if not isinstance(value, kind):
        raise ValueError(f"field {number} of a message is {'a number' if isinstance(value, int) else 'text'}")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Field numbers and values, int or bytes, of one message; the wire format of protocol buffers."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            value, position = _varint(data, position)
            yield number, value
            continue
        if wire_type == _BYTES:
            length, position = _varint(data, position)
        elif wire_type in (_FIXED32, _FIXED64):
            length = 4 if wire_type == _FIXED32 else 8
        else:
            raise ValueError(f"unknown wire type {wire_type}")
        if position + length > len(data):
            raise ValueError("it is truncated")
        yield number, data[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
