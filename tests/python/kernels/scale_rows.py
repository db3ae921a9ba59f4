"""A small kernel for the compiler's tests: every kind of argument, type, key, tile and condition."""

import triton
import triton.language as tl

from inflight.kernels.compiler.declaration import Kernel, Tile


@triton.jit
def scale_rows(output, input, rows, size, factor, SIGN: tl.constexpr, REPEATS: tl.constexpr, TILE: tl.constexpr):
    """Rows times a factor.
    Not what anybody needs."""
    columns = tl.arange(0, TILE)
    x = tl.load(input + tl.program_id(0) * size + columns, mask=columns < size, other=0.0).to(tl.float32)
    for _ in range(REPEATS):
        x = x * factor if SIGN == "plus" else x * -factor
    tl.store(output + tl.program_id(0) * size + columns, x.to(output.dtype.element_ty), mask=columns < size)


SCALE_ROWS = Kernel(
    scale_rows,
    arguments={
        "output": ("dtype* % 16", "[rows, size]"),
        "input": ("const dtype* % 16", "[rows, size]"),
        "rows": ("i32", ""),
        "size": ("i32 % 16", "of a row"),
        "factor": ("fp32", ""),
    },
    grid=("rows", "cdiv(size, TILE)", "1"),
    types={"dtype": ("bf16", "fp32")},
    keys={"SIGN": ("plus", "minus"), "REPEATS": (1, 3)},
    where="SIGN == 'plus' or REPEATS == 1",
    tiles=[
        Tile({"TILE": 64}, num_warps=1, when="REPEATS == 1 and size <= 64"),
        Tile({"TILE": 256}, num_warps=2, when="size <= 256"),
    ],
    choices={"rows": "min(rows, 8) if SIGN == 'plus' else cdiv(rows, 2)"},
)
