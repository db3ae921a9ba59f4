"""GGUF files: metadata and mapped tensors.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
gguf.GGUFReader reads the same; it takes seconds for the string arrays of a tokenizer and trusts the file's
sizes, so the container is parsed here, with every length checked. Types and their block sizes are gguf's.
"""

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from inflight.errors import InflightError
from inflight.fields import Fields

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_SCALAR_TYPES = {code: np.dtype(name) for code, name in _SCALARS.items()}
_MAX_DIMENSIONS = 4
_MAX_ARRAY_DEPTH = 8  # no known key nests arrays at all


@dataclass(frozen=True)
class GgufTensor:
    """shape: row-major, as NumPy counts (GGUF lists dimensions the other way). data: uint8 [rows, row bytes]."""

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    data: np.ndarray


class GgufFile:
    """A memory-mapped GGUF file.

    metadata: scalars as Python values, strings as str, arrays of numbers as NumPy arrays, other arrays as lists.
    Raises InflightError when the file cannot be read, is truncated, or is not GGUF.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        try:
            with open(self.path, "rb") as file:
                self._size = file.seek(0, 2)
                if self._size < 24:
                    raise InflightError(f"{self.path} is {self._size} bytes long: too short for a GGUF file")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise InflightError(f"cannot read {self.path}: {error.strerror}") from error
        if self._map[:4] != _MAGIC:
            raise InflightError(f"{self.path} is not a GGUF file: it starts with {self._map[:4]!r}, not {_MAGIC!r}")
        self._position = 4
        self._version = self._number("<I")
        if self._version not in _VERSIONS:
            raise InflightError(
                f"{self.path}: GGUF version is {self._version}; supported are little-endian files of versions 2 and 3"
            )
        tensor_count, metadata_count = self._number("<Q"), self._number("<Q")
        self.metadata: dict[str, Any] = {}
        for _ in range(metadata_count):
            key = self._string()
            if key in self.metadata:
                raise InflightError(f"{self.path} is damaged: metadata key {key} is there twice")
            self.metadata[key] = self._value(self._number("<I"))
        self.tensors = self._read_tensors(tensor_count)

    def _read_tensors(self, count: int) -> dict[str, GgufTensor]:
        entries: dict[str, tuple[tuple[int, ...], int, int]] = {}
        for _ in range(count):
            name = self._string()
            if name in entries:
                raise InflightError(f"{self.path} is damaged: tensor {name} is there twice")
            dimensions = self._number("<I")
            if not 1 <= dimensions <= _MAX_DIMENSIONS:
                raise InflightError(f"{self.path}: tensor {name} has {dimensions} dimensions; expected 1 to 4")
            shape = tuple(self._number("<Q") for _ in range(dimensions))[::-1]
            if 0 in shape:
                raise InflightError(f"{self.path}: tensor {name} of shape {list(shape)} is empty")
            entries[name] = (shape, self._number("<I"), self._number("<Q"))
        fields = Fields(self.metadata, str(self.path))
        alignment = fields.integer("general.alignment", minimum=1, default=_DEFAULT_ALIGNMENT)
        if alignment & (alignment - 1):
            fields.fail("general.alignment", "a power of two")
        data_start = -(-self._position // alignment) * alignment
        tensors, end = {}, 0
        for name, (shape, type_code, offset) in entries.items():
            # As llama.cpp has it: each tensor where the one before it ends, so that none overlap
            if offset != end:
                raise InflightError(
                    f"{self.path} is damaged: tensor {name} begins at byte {offset} of the data; expected {end}"
                )
            tensors[name] = self._tensor(data_start + offset, name, shape, type_code)
            end += -(-tensors[name].data.size // alignment) * alignment
        return tensors

    def _tensor(self, start: int, name: str, shape: tuple[int, ...], type_code: int) -> GgufTensor:
        try:
            tensor_type = GGMLQuantizationType(type_code)
        except ValueError as error:
            raise InflightError(f"{self.path}: tensor {name} has unknown type {type_code}") from error
        block_size, block_bytes = GGML_QUANT_SIZES[tensor_type]
        if shape[-1] % block_size:
            raise InflightError(
                f"{self.path}: tensor {name} has rows of {shape[-1]}; "
                f"{tensor_type.name} needs a multiple of {block_size}"
            )
        rows, row_bytes = math.prod(shape[:-1]), shape[-1] // block_size * block_bytes
        if start + rows * row_bytes > self._size:
            raise InflightError(
                f"{self.path} is truncated: tensor {name} ends at byte {start + rows * row_bytes}, "
                f"the file has {self._size}"
            )
        data = np.frombuffer(self._map, np.uint8, rows * row_bytes, start).reshape(rows, row_bytes)
        return GgufTensor(name, tensor_type, shape, data)

    def _value(self, type_code: int, depth: int = 0) -> Any:
        if type_code in _SCALAR_TYPES:
            return self._scalars(_SCALAR_TYPES[type_code], 1)[0].item()
        if type_code == _STRING:
            return self._string()
        if type_code != _ARRAY:
            raise InflightError(f"{self.path}: metadata holds a value of unknown type {type_code}")
        if depth == _MAX_ARRAY_DEPTH:
            raise InflightError(f"{self.path}: metadata nests arrays deeper than {_MAX_ARRAY_DEPTH}")
        item_type, count = self._number("<I"), self._number("<Q")
        if item_type in _SCALAR_TYPES:
            return self._scalars(_SCALAR_TYPES[item_type], count)
        if item_type == _STRING:
            return [self._string() for _ in range(count)]
        return [self._value(item_type, depth + 1) for _ in range(count)]

    def _scalars(self, dtype: np.dtype, count: int) -> np.ndarray:
        start = self._advance(count * dtype.itemsize)
        return np.frombuffer(self._map, dtype, count, start)

    def _string(self) -> str:
        length = self._number("<Q")
        start = self._advance(length)
        # Tokenizers' byte tokens are not always valid UTF-8
        return self._map[start : start + length].decode("utf-8", errors="replace")

    def _number(self, form: str) -> int:
        return struct.unpack_from(form, self._map, self._advance(struct.calcsize(form)))[0]

    def _advance(self, size: int) -> int:
        start = self._position
        if start + size > self._size:
            raise InflightError(
                f"{self.path} is truncated or damaged: its header needs {start + size} bytes, the file has {self._size}"
            )
        self._position = start + size
        return start
