"""The product of up to 64 rows, its depth split among programs: weights arrive as fast as memory gives them."""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_wait

from inflight.kernels.compiler.declaration import Kernel, Tile


@triton.jit
def add_up_parts(sum, partials, counters, tile, split, splits, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Puts down one split's part of a tile. Returns whether it was the tile's last one, and then the sum of all parts,
    in the order of the splits, whoever came last."""
    at = tl.arange(0, COLUMNS)[:, None] * ROWS + tl.arange(0, ROWS)[None, :]
    parts = partials + tile.to(tl.int64) * splits * (ROWS * COLUMNS)
    tl.store(parts + split * (ROWS * COLUMNS) + at, sum)
    tl.debug_barrier()  # all threads have written before one says so
    is_last = tl.atomic_add(counters + tile, 1, sem="acq_rel") == splits - 1
    if is_last:
        tl.store(counters + tile, 0)
        sum = tl.zeros([COLUMNS, ROWS], tl.float32)
        for i in range(splits):
            sum += tl.load(parts + i * (ROWS * COLUMNS) + at, cache_modifier=".cg")
    return is_last, sum


@triton.jit
def split_gemm(
    output,
    input,
    weight,
    residual,
    partials,
    counters,
    rows,
    columns,
    depth,
    splits,
    ADD_RESIDUAL: tl.constexpr,
    PDL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """output = input · weightᵀ (+ residual). The last of a tile's splits to arrive adds their parts up."""
    tile = tl.program_id(0)
    split = tl.program_id(1)
    row = tl.arange(0, ROWS)
    column = tile * COLUMNS + tl.arange(0, COLUMNS)
    part = tl.cdiv(tl.cdiv(depth, splits), DEPTH) * DEPTH
    first = split * part
    last = tl.minimum(first + part, depth)
    weights = weight + column[:, None].to(tl.int64) * depth + tl.arange(0, DEPTH)[None, :]
    inputs = input + row[None, :] * depth + tl.arange(0, DEPTH)[:, None]
    is_row = row[None, :] < rows
    if PDL:
        gdc_wait()
    sum = tl.zeros([COLUMNS, ROWS], tl.float32)
    for k in range(first, last, DEPTH):
        w = tl.load(weights + k)
        x = tl.load(inputs + k, mask=is_row, other=0.0)
        sum = tl.dot(w, x, sum)
    is_last = splits == 1
    if splits > 1:
        is_last, sum = add_up_parts(sum, partials, counters, tile, split, splits, ROWS, COLUMNS)
    if is_last:
        at = row[None, :] * columns + column[:, None]
        if ADD_RESIDUAL:
            sum += tl.load(residual + at, mask=is_row, other=0.0).to(tl.float32)
        tl.store(output + at, sum.to(output.dtype.element_ty), mask=is_row)


_PARTS = {
    "partials": ("fp32*", "[columns / 64, splits, 64, rows rounded up to 16, 32 or 64]; null with one split"),
    "counters": ("i32*", "[columns / 64], zeroed before the first launch; a launch leaves them zeroed"),
}

SPLIT_GEMM = Kernel(
    split_gemm,
    arguments={
        "output": ("dtype* % 16", "[rows, columns]"),
        "input": ("const dtype* % 16", "[rows, depth]"),
        "weight": ("const dtype* % 16", "[columns, depth]"),
        "residual": ("const dtype* % 16", "[rows, columns], may be output; null without add_residual"),
        **_PARTS,
        "rows": ("i32", "up to 64"),
        "columns": ("i32 % 16", "a multiple of 64"),
        "depth": ("i32 % 16", "a multiple of 128"),
        "splits": ("i32", "of the depth, among programs"),
    },
    grid=("cdiv(columns, COLUMNS)", "splits", "1"),
    types={"dtype": ("bf16", "fp16")},
    keys={"ADD_RESIDUAL": (False, True)},
    tiles=[
        Tile(
            {"ROWS": rows, "COLUMNS": 64, "DEPTH": 128},
            num_warps=4,
            num_stages=stages,
            when=f"rows <= {rows}",
            targets=targets,
        )
        for rows in (16, 32, 64)
        for stages, targets in ((2, (86, 89, 120)), (4, ()))
    ],
)
