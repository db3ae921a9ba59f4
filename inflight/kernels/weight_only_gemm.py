"""Products with integer weights, as checkpoints store them; each tile becomes floating point as it is needed."""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_wait

from inflight.kernels.compiler.declaration import Kernel, Tile


@triton.jit
def scaled(q, scale, minimum, groups, column, group, HAS_MINIMUM: tl.constexpr, ZERO: tl.constexpr):
    """scale * (q - ZERO), or scale * q + minimum, of q [columns, depth] in groups of the depth."""
    at = column[:, None].to(tl.int64) * groups + group[None, :]
    s = tl.load(scale + at)
    if HAS_MINIMUM:
        return s * q.to(tl.float32) + tl.load(minimum + at)
    else:
        return s * (q.to(tl.float32) - ZERO)


@triton.jit
def weight_only_gemm(
    output,
    input,
    weight,
    scale,
    minimum,
    residual,
    rows,
    columns,
    depth,
    groups,
    group_size,
    VALUES: tl.constexpr,
    HAS_MINIMUM: tl.constexpr,
    ADD_RESIDUAL: tl.constexpr,
    PDL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """output = input · weightᵀ (+ residual). int8: scale * q. int4: two values of the depth a byte, the even one in the
    low nibble; scale * (q - 8), or scale * q + minimum with HAS_MINIMUM."""
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    is_row = row[None, :] < rows
    is_column = column[:, None] < columns
    inputs = input + row[None, :].to(tl.int64) * depth
    if PDL:
        gdc_wait()
    sum = tl.zeros([COLUMNS, ROWS], tl.float32)
    for first in range(0, depth, DEPTH):
        if VALUES == "int8":
            k = first + tl.arange(0, DEPTH)
            q = tl.load(
                weight + column[:, None].to(tl.int64) * depth + k[None, :],
                mask=is_column & (k < depth)[None, :],
                other=0,
            )
            w = scaled(q, scale, minimum, groups, column, tl.minimum(k, depth - 1) // group_size, HAS_MINIMUM, 0)
            x = tl.load(inputs + k[:, None], mask=is_row & (k < depth)[:, None], other=0.0)
            sum = tl.dot(w.to(x.dtype), x, sum)
        else:
            k = first + 2 * tl.arange(0, DEPTH // 2)  # and k + 1
            group = tl.minimum(k, depth - 2) // group_size
            q = tl.load(
                weight + column[:, None].to(tl.int64) * (depth // 2) + (k // 2)[None, :],
                mask=is_column & (k < depth)[None, :],
                other=0,
            ).to(tl.int32)
            inside = is_row & (k < depth)[:, None]
            even = tl.load(inputs + k[:, None], mask=inside, other=0.0)
            odd = tl.load(inputs + k[:, None] + 1, mask=inside, other=0.0)
            low = scaled(q & 15, scale, minimum, groups, column, group, HAS_MINIMUM, 8)
            high = scaled((q >> 4) & 15, scale, minimum, groups, column, group, HAS_MINIMUM, 8)
            sum = tl.dot(low.to(even.dtype), even, sum)
            sum = tl.dot(high.to(odd.dtype), odd, sum)
    at = row[None, :].to(tl.int64) * columns + column[:, None]
    if ADD_RESIDUAL:
        sum += tl.load(residual + at, mask=is_row & is_column, other=0.0).to(tl.float32)
    tl.store(output + at, sum.to(output.dtype.element_ty), mask=is_row & is_column)


WEIGHT_ONLY_GEMM = Kernel(
    weight_only_gemm,
    arguments={
        "output": ("dtype* % 16", "[rows, columns]"),
        "input": ("const dtype* % 16", "[rows, depth]"),
        "weight": ("const i8* % 16", "[columns, depth], int4: [columns, depth / 2]"),
        "scale": ("const fp32*", "[columns, groups]"),
        "minimum": ("const fp32*", "[columns, groups]; null without has_minimum"),
        "residual": ("const dtype* % 16", "[rows, columns], may be output; null without add_residual"),
        "rows": ("i32", ""),
        "columns": ("i32", ""),
        "depth": ("i32 % 16", ""),
        "groups": ("i32", "of a row of the weights"),
        "group_size": ("i32", "depth / groups, even"),
    },
    grid=("cdiv(columns, COLUMNS)", "cdiv(rows, ROWS)", "1"),
    types={"dtype": ("bf16", "fp16")},
    keys={"VALUES": ("int8", "int4"), "HAS_MINIMUM": (False, True), "ADD_RESIDUAL": (False, True)},
    where="VALUES == 'int4' or not HAS_MINIMUM",
    tiles=[
        Tile({"ROWS": 16, "COLUMNS": 32, "DEPTH": 128}, num_warps=4, num_stages=3, when="rows <= 16"),
        Tile({"ROWS": 64, "COLUMNS": 64, "DEPTH": 64}, num_warps=4, num_stages=3, when="rows <= 64"),
        Tile({"ROWS": 128, "COLUMNS": 128, "DEPTH": 64}, num_warps=8, num_stages=3),
    ],
)
