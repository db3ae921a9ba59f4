"""Runs a declared kernel in Triton's interpreter, on the tile and grid that its C++ launcher would choose."""

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

from inflight.kernels.compiler.declaration import Kernel
from inflight.kernels.compiler.expression import evaluate

DTYPES = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "fp8e4nv": torch.float8_e4m3fn,
    "i8": torch.int8,
    "i32": torch.int32,
    "i64": torch.int64,
}
# ‖output - reference‖ / ‖reference‖. The interpreter cuts bfloat16 off where a GPU rounds to nearest.
TOLERANCES = {"bf16": 6e-3, "fp16": 1e-3}


_create_dot = interpreter.InterpreterBuilder.create_dot


def _create_dot_of_bfloat16(builder, a, b, *rest):
    """Triton 3.6 holds bfloat16 as integers, and multiplies those."""

    def widened(handle):
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return interpreter.TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    return _create_dot(builder, widened(a), widened(b), *rest)


interpreter.InterpreterBuilder.create_dot = _create_dot_of_bfloat16


def run(kernel: Kernel, types: dict[str, str], keys: dict[str, object], arguments: dict[str, object]) -> None:
    """`arguments` are tensors of the declared types, numbers, or None for a null pointer."""
    values = {**types, **keys, **arguments}
    for argument in kernel.parsed_arguments():
        tensor = arguments[argument.name]
        if isinstance(tensor, torch.Tensor):
            assert tensor.dtype == DTYPES[types.get(argument.element, argument.element)], argument.name
    tile = next(tile for tile in kernel.tiles if not tile.targets and evaluate(tile.when, values))
    constants = {**keys, **tile.constants, **({"PDL": False} if kernel.waits_itself else {})}
    grid = tuple(evaluate(size, {**values, **tile.constants}) for size in kernel.grid)
    ordered = {name: arguments[name] for name in kernel.arguments}
    kernel.function[grid](*ordered.values(), **constants)


def poisoned(*shape: int, dtype: str) -> torch.Tensor:
    """A tensor in which an element that nobody writes is found: NaN, or the lowest integer."""
    fill = float("nan") if DTYPES[dtype].is_floating_point else torch.iinfo(DTYPES[dtype]).min
    return torch.full(shape, fill, dtype=torch.float32 if dtype == "fp8e4nv" else DTYPES[dtype]).to(DTYPES[dtype])


def error(output: torch.Tensor, reference: torch.Tensor) -> float:
    """Relative error in float64; NaN, which no comparison lets pass, if anything was not written."""
    return float((output.double() - reference).norm() / reference.norm())
