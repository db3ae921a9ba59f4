"""GGML's blocks of quantized weights → matrices of the checkpoint.

Layouts: ggml-common.h of https://github.com/ggml-org/ggml. Q4_0, Q4_1, Q4_K and Q8_0 are regrouped without
touching a value; Q5_K and Q6_K, which the checkpoint has no type for, become int8 in groups of 32.
"""

from collections.abc import Callable

import numpy as np
from gguf.constants import GGMLQuantizationType as GgmlType
from gguf.quants import Q4_K, dequantize

from inflight.checkpoint.matrix import Matrix, MatrixType, pack_int4, quantize

GROUP_SIZE = 32
_INT8 = MatrixType("int8", GROUP_SIZE)
_INT4 = MatrixType("int4", GROUP_SIZE)
_INT4_WITH_MINIMUM = MatrixType("int4", GROUP_SIZE, has_minimum=True)

# What each GGML type becomes in a checkpoint.
MATRIX_TYPES = {
    GgmlType.F32: MatrixType("float32"),
    GgmlType.F16: MatrixType("float16"),
    GgmlType.BF16: MatrixType("bfloat16"),
    GgmlType.Q8_0: _INT8,
    GgmlType.Q4_0: _INT4,
    GgmlType.Q4_1: _INT4_WITH_MINIMUM,
    GgmlType.Q4_K: _INT4_WITH_MINIMUM,
    GgmlType.Q5_K: _INT8,
    GgmlType.Q6_K: _INT8,
}


def decode_rows(tensor_type: GgmlType, rows: np.ndarray) -> Matrix:
    """uint8 [rows, row bytes] of one GGML type → the same rows as MATRIX_TYPES[tensor_type]."""
    return _DECODERS[tensor_type](rows)


def _decode_q8_0(rows: np.ndarray) -> Matrix:
    blocks = rows.reshape(len(rows), -1, 34)
    return Matrix(_INT8, _flat(blocks[..., 2:]).view(np.int8), _halves(blocks, 0))


def _decode_q4_0(rows: np.ndarray) -> Matrix:
    blocks = rows.reshape(len(rows), -1, 18)
    return Matrix(_INT4, _interleave_nibbles(blocks[..., 2:]), _halves(blocks, 0))


def _decode_q4_1(rows: np.ndarray) -> Matrix:
    blocks = rows.reshape(len(rows), -1, 20)
    return Matrix(_INT4_WITH_MINIMUM, _interleave_nibbles(blocks[..., 4:]), _halves(blocks, 0), _halves(blocks, 2))


def _decode_q4_k(rows: np.ndarray) -> Matrix:
    # d, dmin: float16; 8 scales and 8 minimums of 6 bits; 4 runs of 32 bytes, each two groups of 32 nibbles
    blocks = rows.reshape(len(rows), -1, 144)
    scales, minimums = Q4_K.get_scale_min(_flat(blocks[..., 4:16]).reshape(-1, 12))
    shape = (*blocks.shape[:2], 8)
    scale = _halves(blocks, 0)[..., None] * scales.reshape(shape).astype(np.float32)
    minimum = -(_halves(blocks, 2)[..., None] * minimums.reshape(shape).astype(np.float32))
    packed = _interleave_nibbles(blocks[..., 16:].reshape(*blocks.shape[:2], 4, 32))
    return Matrix(_INT4_WITH_MINIMUM, packed, scale.reshape(len(rows), -1), minimum.reshape(len(rows), -1))


def _requantize(tensor_type: GgmlType) -> Callable[[np.ndarray], Matrix]:
    return lambda rows: quantize(dequantize(np.ascontiguousarray(rows), tensor_type), _INT8)


def _floats(matrix_type: MatrixType, dtype: str) -> Callable[[np.ndarray], Matrix]:
    return lambda rows: Matrix(matrix_type, np.ascontiguousarray(rows).view(dtype))


def _halves(blocks: np.ndarray, offset: int) -> np.ndarray:
    """The float16 at `offset` of every block, as float32 [rows, blocks]."""
    return np.ascontiguousarray(blocks[..., offset : offset + 2]).view("<f2")[..., 0].astype(np.float32)


def _flat(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).reshape(len(values), -1)


def _interleave_nibbles(runs: np.ndarray) -> np.ndarray:
    """Runs of n bytes hold n columns in their low and the next n in their high nibbles; see pack_int4."""
    q = np.concatenate([runs & np.uint8(15), runs >> np.uint8(4)], axis=-1)
    return _flat(pack_int4(q))


_DECODERS: dict[GgmlType, Callable[[np.ndarray], Matrix]] = {
    GgmlType.F32: _floats(MATRIX_TYPES[GgmlType.F32], "<f4"),
    GgmlType.F16: _floats(MATRIX_TYPES[GgmlType.F16], "<f2"),
    GgmlType.BF16: _floats(MATRIX_TYPES[GgmlType.BF16], "<u2"),
    GgmlType.Q8_0: _decode_q8_0,
    GgmlType.Q4_0: _decode_q4_0,
    GgmlType.Q4_1: _decode_q4_1,
    GgmlType.Q4_K: _decode_q4_k,
    GgmlType.Q5_K: _requantize(GgmlType.Q5_K),
    GgmlType.Q6_K: _requantize(GgmlType.Q6_K),
}
