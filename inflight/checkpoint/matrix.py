"""Weight matrices in the checkpoint's types: float32, bfloat16, float16, int8 and int4 by groups of columns.

The values, as docs/architecture.md lays them down: int8 is `scale · q`; int4 is `scale · q + minimum`, or
`scale · (q − 8)` without minimums, two columns a byte, the even one in the low nibble. Quantization is
round to nearest: int8 symmetric from the largest magnitude of a group, int4 from a group's range.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from inflight.errors import InflightError

SAFETENSORS_DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "int8": "I8", "int4": "U8"}
_WIDTH_ORDER = {"int4": 0, "int8": 1, "float16": 2, "bfloat16": 2, "float32": 3}


@dataclass(frozen=True)
class MatrixType:
    """How a matrix is stored. `group_size` is the columns that share a scale; 0 for floating point."""

    dtype: str
    group_size: int = 0
    has_minimum: bool = False

    @property
    def is_quantized(self) -> bool:
        return self.group_size > 0

    def stored_columns(self, columns: int) -> int:
        """Elements of one stored row of `columns` values."""
        return columns // 2 if self.dtype == "int4" else columns


@dataclass(frozen=True)
class Matrix:
    """Rows of a matrix.

    data: [rows, columns] float32, float16, uint16 (bfloat16's bits) or int8; [rows, columns / 2] uint8 for
    int4. scale, minimum: float32 [rows, columns / group_size], None for floating point.
    """

    type: MatrixType
    data: np.ndarray
    scale: Any = None  # np.ndarray | None, by the type
    minimum: np.ndarray | None = None

    def to_float32(self) -> np.ndarray:
        """The values, [rows, columns]."""
        if self.type.dtype == "bfloat16":
            return bfloat16_to_float32(self.data)
        if not self.type.is_quantized:
            return self.data.astype(np.float32, copy=False)
        q = unpack_int4(self.data) if self.type.dtype == "int4" else self.data
        q = q.reshape(len(q), -1, self.type.group_size).astype(np.float32)
        if self.type.dtype == "int4" and self.minimum is None:
            q -= 8
        q *= self.scale[..., None]
        if self.minimum is not None:
            q += self.minimum[..., None]
        return q.reshape(len(q), -1)

    def convert(self, target: MatrixType) -> "Matrix":
        """The same values in another type; without loss wherever the target can hold them.

        Raises InflightError when the values are not finite or do not fit float16.
        """
        if self.type == target:
            return self
        if 0 < target.group_size < self.type.group_size and self.type.group_size % target.group_size == 0:
            return self._split(target.group_size).convert(target)
        if self.type.dtype == "int4" and target.group_size == self.type.group_size and self.minimum is None:
            if target.dtype == "int4":
                return Matrix(target, self.data, self.scale, self.scale * np.float32(-8))
            return Matrix(target, unpack_int4(self.data).astype(np.int8) - np.int8(8), self.scale)
        values = self.to_float32()
        if target.dtype == "float32":
            return Matrix(target, values)
        if not np.isfinite(values).all():
            raise InflightError("the weights hold NaN or infinity")
        if target.dtype == "bfloat16":
            return Matrix(target, float32_to_bfloat16(values))
        if target.dtype == "float16":
            return Matrix(target, _float32_to_float16(values))
        return quantize(values, target)

    def check_scales(self) -> None:
        """Raises InflightError when a scale or minimum is not finite."""
        if not all(np.isfinite(values).all() for values in (self.scale, self.minimum) if values is not None):
            raise InflightError("the scales of the weights hold NaN or infinity")

    def _split(self, group_size: int) -> "Matrix":
        """The same values in smaller groups."""

        def repeated(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values.repeat(self.type.group_size // group_size, axis=1)

        smaller = MatrixType(self.type.dtype, group_size, self.type.has_minimum)
        return Matrix(smaller, self.data, repeated(self.scale), repeated(self.minimum))


def widest(types: list[MatrixType]) -> MatrixType:
    """The narrowest type that holds matrices of all `types` when they are fused by rows."""
    dtypes = {matrix_type.dtype for matrix_type in types}
    if {"float16", "bfloat16"} <= dtypes:
        return MatrixType("float32")
    dtype = max(dtypes, key=_WIDTH_ORDER.__getitem__)
    if dtype not in ("int8", "int4"):
        return MatrixType(dtype)
    has_minimum = dtype == "int4" and any(matrix_type.has_minimum for matrix_type in types)
    return MatrixType(dtype, min(matrix_type.group_size for matrix_type in types), has_minimum)


def quantize(values: np.ndarray, target: MatrixType) -> Matrix:
    """Quantizes finite float32 [rows, columns] to int8, or to int4 with minimums."""
    groups = values.reshape(len(values), -1, target.group_size)
    if target.dtype == "int8":
        scale = np.abs(groups).max(axis=-1) / np.float32(127)
        q = np.rint(groups * _inverse(scale)[..., None]).astype(np.int8)
        return Matrix(target, q.reshape(values.shape), scale)
    minimum = groups.min(axis=-1)
    scale = (groups.max(axis=-1) - minimum) / np.float32(15)
    q = np.rint((groups - minimum[..., None]) * _inverse(scale)[..., None]).clip(0, 15).astype(np.uint8)
    return Matrix(target, pack_int4(q.reshape(values.shape)), scale, minimum)


def pack_int4(q: np.ndarray) -> np.ndarray:
    """uint8 [..., columns] of values below 16 → uint8 [..., columns / 2]."""
    return q[..., 0::2] | (q[..., 1::2] << np.uint8(4))


def unpack_int4(packed: np.ndarray) -> np.ndarray:
    """uint8 [rows, columns / 2] → uint8 [rows, columns] of values below 16."""
    q = np.empty((len(packed), 2 * packed.shape[1]), np.uint8)
    q[:, 0::2] = packed & np.uint8(15)
    q[:, 1::2] = packed >> np.uint8(4)
    return q


def bfloat16_to_float32(bits: np.ndarray) -> np.ndarray:
    """uint16 bit patterns → float32 values."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def float32_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Finite float32 values → bit patterns of the nearest bfloat16 (ties to even), as uint16."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)).astype(np.uint16)


def _float32_to_float16(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    if not np.isfinite(halves).all():
        raise InflightError("the weights exceed float16's range (65504): choose --dtype bfloat16 or float32")
    return halves


def _inverse(scale: np.ndarray) -> np.ndarray:
    """1 / scale, and 0 where that is no float32."""
    with np.errstate(divide="ignore", over="ignore"):
        return np.where(scale > np.finfo(np.float32).tiny, np.float32(1) / scale, np.float32(0))
