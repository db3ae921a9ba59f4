"""Weight types: rounding, packing and what converts without loss."""

import numpy as np
import pytest
import torch

from inflight.checkpoint.matrix import (
    Matrix,
    MatrixType,
    bfloat16_to_float32,
    float32_to_bfloat16,
    pack_int4,
    quantize,
    unpack_int4,
    widest,
)

INT8, INT4 = MatrixType("int8", 32), MatrixType("int4", 32)
INT4_MINIMUM = MatrixType("int4", 32, has_minimum=True)


def random_values(rows=5, columns=64):
    return np.random.default_rng(0).normal(0, 0.1, (rows, columns)).astype(np.float32)


def test_even_columns_lie_in_the_low_nibble():
    q = np.arange(16, dtype=np.uint8).reshape(2, 8)
    assert pack_int4(q)[0].tolist() == [0x10, 0x32, 0x54, 0x76]
    assert np.array_equal(unpack_int4(pack_int4(q)), q)


def test_bfloat16_is_rounded_to_nearest_even_as_torch_does():
    values = np.concatenate([random_values().ravel(), [0, -0.0, 1 + 2**-8, 1 + 3 * 2**-8, 3e38, 1e-40]]).astype(
        np.float32
    )
    expected = torch.from_numpy(values).bfloat16().float().numpy()
    assert np.array_equal(bfloat16_to_float32(float32_to_bfloat16(values)), expected)


@pytest.mark.parametrize("target", [INT8, INT4_MINIMUM, MatrixType("int8", 64)], ids=str)
def test_quantization_errs_by_half_a_step_at_most(target):
    values = random_values()
    matrix = quantize(values, target)
    error = np.abs(matrix.to_float32() - values).reshape(*matrix.scale.shape, -1)
    assert (error <= matrix.scale[..., None] * 0.501).all()


@pytest.mark.parametrize("target", [INT8, INT4_MINIMUM], ids=str)
@pytest.mark.parametrize("constant", [0.0, 0.25, -3.0])
def test_constant_rows_are_exact(target, constant):
    values = np.full((2, 64), constant, np.float32)
    assert np.allclose(quantize(values, target).to_float32(), values, rtol=1e-6)


def test_int4_without_minimum_becomes_wider_types_without_loss():
    generator = np.random.default_rng(1)
    scale = generator.uniform(0.01, 1, (3, 2)).astype(np.float16).astype(np.float32)
    matrix = Matrix(INT4, generator.integers(0, 256, (3, 32), dtype=np.uint8), scale)
    for target in (INT8, INT4_MINIMUM, MatrixType("float32")):
        assert np.array_equal(matrix.convert(target).to_float32(), matrix.to_float32())


@pytest.mark.parametrize(
    "types, expected",
    [
        ([INT4, INT4], INT4),
        ([INT4, INT4_MINIMUM], INT4_MINIMUM),
        ([INT4_MINIMUM, INT8], INT8),
        ([INT8, MatrixType("bfloat16")], MatrixType("bfloat16")),
        ([MatrixType("float16"), MatrixType("bfloat16")], MatrixType("float32")),
        ([MatrixType("float16"), MatrixType("float32")], MatrixType("float32")),
    ],
)
def test_widest_type(types, expected):
    assert widest(types) == expected
