"""RMSNorm (arXiv:1910.07467) and LayerNorm (arXiv:1607.06450), with the addition of a residual before them."""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from inflight.kernels.compiler.declaration import Kernel, Tile


@triton.jit
def rms_norm(
    output,
    sum_output,
    input,
    residual,
    weight,
    rows,
    size,
    epsilon,
    ADD_RESIDUAL: tl.constexpr,
    PDL: tl.constexpr,
    TILE: tl.constexpr,
):
    """RMSNorm of each row, of input or of input + residual. In place where output is input."""
    if PDL:
        gdc_launch_dependents()
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, TILE)
    inside = columns < size
    scale = tl.load(weight + columns, mask=inside, other=0.0)
    if PDL:
        gdc_wait()
    x = tl.load(input + row * size + columns, mask=inside, other=0.0).to(tl.float32)
    if ADD_RESIDUAL:
        x += tl.load(residual + row * size + columns, mask=inside, other=0.0).to(tl.float32)
        rounded = x.to(sum_output.dtype.element_ty)
        tl.store(sum_output + row * size + columns, rounded, mask=inside)
        x = rounded.to(tl.float32)  # the norm of what the next residual addition reads
    deviation = tl.rsqrt(tl.sum(x * x, 0) / size + epsilon)
    tl.store(output + row * size + columns, (x * deviation * scale).to(output.dtype.element_ty), mask=inside)


@triton.jit
def layer_norm(
    output,
    sum_output,
    input,
    residual,
    weight,
    bias,
    rows,
    size,
    epsilon,
    ADD_RESIDUAL: tl.constexpr,
    ADD_BIAS: tl.constexpr,
    PDL: tl.constexpr,
    TILE: tl.constexpr,
):
    """LayerNorm of each row, of input or of input + residual. In place where output is input."""
    if PDL:
        gdc_launch_dependents()
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, TILE)
    inside = columns < size
    scale = tl.load(weight + columns, mask=inside, other=0.0)
    if ADD_BIAS:
        shift = tl.load(bias + columns, mask=inside, other=0.0)
    if PDL:
        gdc_wait()
    x = tl.load(input + row * size + columns, mask=inside, other=0.0).to(tl.float32)
    if ADD_RESIDUAL:
        x += tl.load(residual + row * size + columns, mask=inside, other=0.0).to(tl.float32)
        rounded = x.to(sum_output.dtype.element_ty)
        tl.store(sum_output + row * size + columns, rounded, mask=inside)
        x = rounded.to(tl.float32)
    mean = tl.sum(x, 0) / size
    centered = tl.where(inside, x - mean, 0.0)
    deviation = tl.rsqrt(tl.sum(centered * centered, 0) / size + epsilon)
    y = centered * deviation * scale
    if ADD_BIAS:
        y += shift
    tl.store(output + row * size + columns, y.to(output.dtype.element_ty), mask=inside)


_ROWS = {
    "output": ("dtype* % 16", "[rows, size]"),
    "sum_output": ("dtype* % 16", "[rows, size]: input + residual; may be residual; null without add_residual"),
    "input": ("const dtype* % 16", "[rows, size]"),
    "residual": ("const dtype* % 16", "[rows, size]; null without add_residual"),
    "weight": ("const fp32* % 16", "[size]"),
}
_SIZES = {"rows": ("i32", ""), "size": ("i32 % 16", "of a row"), "epsilon": ("fp32", "")}
_TILES = [
    Tile({"TILE": 1024}, num_warps=4, when="size <= 1024"),
    Tile({"TILE": 2048}, num_warps=8, when="size <= 2048"),
    Tile({"TILE": 4096}, num_warps=8, when="size <= 4096"),
    Tile({"TILE": 8192}, num_warps=16, when="size <= 8192"),
    Tile({"TILE": 16384}, num_warps=16, when="size <= 16384"),
]

RMS_NORM = Kernel(
    rms_norm,
    arguments={**_ROWS, **_SIZES},
    grid=("rows", "1", "1"),
    types={"dtype": ("bf16", "fp16")},
    keys={"ADD_RESIDUAL": (False, True)},
    tiles=_TILES,
)

LAYER_NORM = Kernel(
    layer_norm,
    arguments={**_ROWS, "bias": ("const fp32* % 16", "[size]; null without add_bias"), **_SIZES},
    grid=("rows", "1", "1"),
    types={"dtype": ("bf16", "fp16")},
    keys={"ADD_RESIDUAL": (False, True), "ADD_BIAS": (False, True)},
    tiles=_TILES,
)
