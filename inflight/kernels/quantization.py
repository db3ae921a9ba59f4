"""Activations → 8 bits with one scale a token."""

import triton
import triton.language as tl

from inflight.kernels.compiler.declaration import Kernel, Tile


@triton.jit
def quantize_tokens(output, scales, input, rows, size, TILE: tl.constexpr):
    """output = input / scale, scale = the row's largest magnitude / the largest value of the output's type. int8 is
    rounded to nearest, ties to even. A row of zeros gets the scale 1."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, TILE)
    inside = columns < size
    x = tl.load(input + row * size + columns, mask=inside, other=0.0).to(tl.float32)
    largest = tl.max(tl.abs(x), 0)
    IS_INTEGER: tl.constexpr = output.dtype.element_ty == tl.int8
    LIMIT: tl.constexpr = 127.0 if IS_INTEGER else 448.0
    scale = tl.where(largest > 0.0, largest / LIMIT, 1.0)
    y = x / scale
    if IS_INTEGER:
        ROUND: tl.constexpr = 12582912.0  # 1.5 * 2^23: adding it rounds to an integer, ties to even
        y = (y + ROUND) - ROUND
    y = tl.minimum(tl.maximum(y, -LIMIT), LIMIT)
    tl.store(output + row * size + columns, y.to(output.dtype.element_ty), mask=inside)
    tl.store(scales + row, scale)


QUANTIZE_TOKENS = Kernel(
    quantize_tokens,
    arguments={
        "output": ("quantized* % 16", "[rows, size]"),
        "scales": ("fp32*", "[rows]"),
        "input": ("const dtype* % 16", "[rows, size]"),
        "rows": ("i32", ""),
        "size": ("i32 % 16", "of a row"),
    },
    grid=("rows", "1", "1"),
    types={"dtype": ("bf16", "fp16"), "quantized": ("i8", "fp8e4nv")},
    where="target >= 89 or quantized != 'fp8e4nv'",
    tiles=[
        Tile({"TILE": 1024}, num_warps=4, when="size <= 1024"),
        Tile({"TILE": 4096}, num_warps=8, when="size <= 4096"),
        Tile({"TILE": 16384}, num_warps=16, when="size <= 16384"),
        Tile({"TILE": 32768}, num_warps=32, when="size <= 32768"),
    ],
)
