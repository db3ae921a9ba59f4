"""GGML's blocks of quantized weights → matrices of the checkpoint.

Layouts: ggml-common.h of https://github.com/ggml-org/ggml. Every type that gguf can dequantize is read. Those that are
integers times a scale of 16 or 32 columns keep them, without touching a value; the others, which the checkpoint has no
type for, become int8 in groups of 32.
"""

from collections.abc import Callable

import numpy as np
from gguf.constants import GGML_QUANT_SIZES
from gguf.constants import GGMLQuantizationType as GgmlType
from gguf.quants import MXFP4, Q4_K, dequantize

from inflight.checkpoint.matrix import Matrix, MatrixType, pack_int4

GROUP_SIZE = 32
_INT8 = MatrixType("int8", GROUP_SIZE)
_INT4 = MatrixType("int4", GROUP_SIZE)
_INT4_WITH_MINIMUM = MatrixType("int4", GROUP_SIZE, has_minimum=True)
_INT4_BY_16 = MatrixType("int4", 16)
_INT4_BY_16_WITH_MINIMUM = MatrixType("int4", 16, has_minimum=True)
_REQUANTIZED = (
    GgmlType.Q5_1,
    GgmlType.Q5_K,
    GgmlType.Q6_K,
    GgmlType.TQ1_0,
    GgmlType.TQ2_0,
    GgmlType.NVFP4,
    GgmlType.IQ1_S,
    GgmlType.IQ1_M,
    GgmlType.IQ2_XXS,
    GgmlType.IQ2_XS,
    GgmlType.IQ2_S,
    GgmlType.IQ3_XXS,
    GgmlType.IQ3_S,
)

# What each GGML type becomes in a checkpoint.
MATRIX_TYPES = {
    GgmlType.F32: MatrixType("float32"),
    GgmlType.F16: MatrixType("float16"),
    GgmlType.BF16: MatrixType("bfloat16"),
    GgmlType.Q8_0: _INT8,
    GgmlType.Q5_0: _INT8,
    GgmlType.Q4_0: _INT4,
    GgmlType.Q4_1: _INT4_WITH_MINIMUM,
    GgmlType.Q4_K: _INT4_WITH_MINIMUM,
    GgmlType.Q3_K: _INT4_BY_16,
    GgmlType.Q2_K: _INT4_BY_16_WITH_MINIMUM,
    GgmlType.IQ4_NL: _INT8,
    GgmlType.IQ4_XS: _INT8,
    GgmlType.MXFP4: _INT8,
    **dict.fromkeys(_REQUANTIZED, _INT8),
}


def decode_rows(tensor_type: GgmlType, rows: np.ndarray) -> Matrix:
    """uint8 [rows, row bytes] of one GGML type → the same rows as MATRIX_TYPES[tensor_type], or as float32 where that
    could not hold them exactly. Scales that are NaN or infinite, as in damaged files, come as they are."""
    with np.errstate(all="ignore"):
        return _DECODERS[tensor_type](rows)


def _decode_q8_0(rows: np.ndarray) -> Matrix:
    blocks = _blocks(GgmlType.Q8_0, rows)
    return Matrix(_INT8, _flat(blocks[..., 2:]).view(np.int8), _halves(blocks, 0))


def _decode_q4_0(rows: np.ndarray) -> Matrix:
    blocks = _blocks(GgmlType.Q4_0, rows)
    return Matrix(_INT4, _interleave_nibbles(blocks[..., 2:]), _halves(blocks, 0))


def _decode_q4_1(rows: np.ndarray) -> Matrix:
    blocks = _blocks(GgmlType.Q4_1, rows)
    return Matrix(_INT4_WITH_MINIMUM, _interleave_nibbles(blocks[..., 4:]), _halves(blocks, 0), _halves(blocks, 2))


def _decode_q4_k(rows: np.ndarray) -> Matrix:
    # d, dmin: float16; 8 scales and 8 minimums of 6 bits; 4 runs of 32 bytes, each two groups of 32 nibbles
    blocks = _blocks(GgmlType.Q4_K, rows)
    scales, minimums = Q4_K.get_scale_min(_flat(blocks[..., 4:16]).reshape(-1, 12))
    shape = (*blocks.shape[:2], 8)
    scale = _halves(blocks, 0)[..., None] * scales.reshape(shape).astype(np.float32)
    minimum = -(_halves(blocks, 2)[..., None] * minimums.reshape(shape).astype(np.float32))
    packed = _interleave_nibbles(blocks[..., 16:].reshape(*blocks.shape[:2], 4, 32))
    return Matrix(_INT4_WITH_MINIMUM, packed, _flat(scale), _flat(minimum))


def _decode_q2_k(rows: np.ndarray) -> Matrix:
    # 16 bytes, each a scale and a minimum of 4 bits; 64 bytes of 2 bits; d, dmin: float16
    blocks = _blocks(GgmlType.Q2_K, rows)
    scale = _flat(_halves(blocks, 80)[..., None] * (blocks[..., :16] & np.uint8(15)).astype(np.float32))
    minimum = _flat(-(_halves(blocks, 82)[..., None] * (blocks[..., :16] >> np.uint8(4)).astype(np.float32)))
    q = _integers(_by_groups(GgmlType.Q2_K, rows, 16) - minimum[..., None], scale).clip(0, 15)
    return Matrix(_INT4_BY_16_WITH_MINIMUM, pack_int4(q.astype(np.uint8)), scale, minimum)


def _decode_q3_k(rows: np.ndarray) -> Matrix:
    # 32 bytes of high bits; 64 bytes of 2 bits; 16 scales of 6 bits: 4 in the nibbles of 8 bytes, 2 in 4 bytes; d
    blocks = _blocks(GgmlType.Q3_K, rows)
    nibbles, pairs = blocks[..., 96:104], blocks[..., 104:108]
    low = np.concatenate([nibbles & np.uint8(15), nibbles >> np.uint8(4)], axis=-1)
    high = np.concatenate([(pairs >> np.uint8(shift)) & np.uint8(3) for shift in (0, 2, 4, 6)], axis=-1)
    scales = (low | (high << np.uint8(4))).astype(np.float32) - 32
    scale = _flat(_halves(blocks, 108)[..., None] * scales)
    q = (_integers(_by_groups(GgmlType.Q3_K, rows, 16), scale) + 8).clip(0, 15)
    return Matrix(_INT4_BY_16, pack_int4(q.astype(np.uint8)), scale)


def _scale_of_iq4_xs(blocks: np.ndarray) -> np.ndarray:
    # d: float16; 8 scales of 6 bits: the high 2 in a uint16, the low 4 in nibbles of 4 bytes
    high = np.ascontiguousarray(blocks[..., 2:4]).view("<u2")
    high = (high >> np.arange(0, 16, 2, dtype=np.uint16)) & np.uint16(3)
    low = (blocks[..., 4:8, None] >> np.array([0, 4], np.uint8)).reshape(high.shape) & np.uint8(15)
    return _halves(blocks, 0)[..., None] * (low.astype(np.float32) + 16 * high.astype(np.float32) - 32)


def _scale_of_mxfp4(blocks: np.ndarray) -> np.ndarray:
    return MXFP4.e8m0_to_fp32_half(blocks[..., 0])


def _int8_by(tensor_type: GgmlType, scale_of: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], Matrix]:
    """For types whose values are integers of 8 bits times the scale of 32 columns that `scale_of` the blocks is."""

    def decode(rows: np.ndarray) -> Matrix:
        scale = _flat(scale_of(_blocks(tensor_type, rows))).astype(np.float32)
        q = _integers(_by_groups(tensor_type, rows, GROUP_SIZE), scale)
        return Matrix(_INT8, q.astype(np.int8), scale)

    return decode


def _dequantize(tensor_type: GgmlType) -> Callable[[np.ndarray], Matrix]:
    float32 = MATRIX_TYPES[GgmlType.F32]
    return lambda rows: Matrix(float32, _by_groups(tensor_type, rows, GROUP_SIZE).reshape(len(rows), -1))


def _floats(matrix_type: MatrixType, dtype: str) -> Callable[[np.ndarray], Matrix]:
    return lambda rows: Matrix(matrix_type, np.ascontiguousarray(rows).view(dtype))


def _blocks(tensor_type: GgmlType, rows: np.ndarray) -> np.ndarray:
    """uint8 [rows, blocks, block bytes]."""
    return rows.reshape(len(rows), -1, GGML_QUANT_SIZES[tensor_type][1])


def _by_groups(tensor_type: GgmlType, rows: np.ndarray, group_size: int) -> np.ndarray:
    """The values, float32 [rows, groups, group_size]."""
    return dequantize(np.ascontiguousarray(rows), tensor_type).reshape(len(rows), -1, group_size).astype(np.float32)


def _integers(groups: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """What the scales are multiplied with, float32 [rows, columns]; 0 where a scale is 0."""
    scales = np.broadcast_to(scale[..., None], groups.shape)
    q = np.divide(groups, scales, out=np.zeros_like(groups), where=scales != 0)
    return np.rint(q).reshape(len(groups), -1)


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
    GgmlType.Q5_0: _int8_by(GgmlType.Q5_0, lambda blocks: _halves(blocks, 0)),
    GgmlType.Q4_0: _decode_q4_0,
    GgmlType.Q4_1: _decode_q4_1,
    GgmlType.Q4_K: _decode_q4_k,
    GgmlType.Q3_K: _decode_q3_k,
    GgmlType.Q2_K: _decode_q2_k,
    GgmlType.IQ4_NL: _int8_by(GgmlType.IQ4_NL, lambda blocks: _halves(blocks, 0)),
    GgmlType.IQ4_XS: _int8_by(GgmlType.IQ4_XS, _scale_of_iq4_xs),
    GgmlType.MXFP4: _int8_by(GgmlType.MXFP4, _scale_of_mxfp4),
    **{tensor_type: _dequantize(tensor_type) for tensor_type in _REQUANTIZED},
}
