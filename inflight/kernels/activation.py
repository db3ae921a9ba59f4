"""Gated and plain activations of a feed-forward layer."""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from inflight.kernels.compiler.declaration import Kernel, Tile


@triton.jit
def activate(x, ACTIVATION: tl.constexpr):
    """The activation of float32 values."""
    if ACTIVATION == "silu":
        return x / (1.0 + tl.exp(-x))
    elif ACTIVATION == "gelu_erf":
        return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    elif ACTIVATION == "gelu_tanh":
        inner = 0.7978845608028654 * (x + 0.044715 * x * x * x)
        return x / (1.0 + tl.exp(-2.0 * inner))  # 0.5 * (1 + tanh(inner)) is the logistic function of 2 * inner
    else:
        tl.static_assert(ACTIVATION == "relu_squared")
        positive = tl.maximum(x, 0.0)
        return positive * positive


@triton.jit
def gated_activation(
    output, input, rows, size, ACTIVATION: tl.constexpr, GATED: tl.constexpr, PDL: tl.constexpr, TILE: tl.constexpr
):
    """activation(gate) * up of rows that hold gate, then up; without GATED activation(input)."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = columns < size
    if PDL:
        gdc_wait()
    if GATED:
        first = input + row * (2 * size)
        gate = tl.load(first + columns, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(first + size + columns, mask=inside, other=0.0).to(tl.float32)
        y = activate(gate, ACTIVATION) * up
    else:
        y = activate(tl.load(input + row * size + columns, mask=inside, other=0.0).to(tl.float32), ACTIVATION)
    tl.store(output + row * size + columns, y.to(output.dtype.element_ty), mask=inside)
    if PDL:
        gdc_launch_dependents()


GATED_ACTIVATION = Kernel(
    gated_activation,
    arguments={
        "output": ("dtype* % 16", "[rows, size]"),
        "input": ("const dtype* % 16", "[rows, 2 size], or [rows, size] without gated"),
        "rows": ("i32", ""),
        "size": ("i32 % 16", "of a row of the output"),
    },
    grid=("rows", "cdiv(size, TILE)", "1"),
    types={"dtype": ("bf16", "fp16")},
    keys={"ACTIVATION": ("silu", "gelu_tanh", "gelu_erf", "relu_squared"), "GATED": (True, False)},
    tiles=[Tile({"TILE": 1024}, num_warps=4)],
)
