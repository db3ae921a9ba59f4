"""Products against float64."""

import pytest
import torch
from interpreted_kernels import DTYPES, TOLERANCES, error, poisoned, run

from inflight.kernels.split_gemm import SPLIT_GEMM
from inflight.kernels.weight_only_gemm import WEIGHT_ONLY_GEMM

both_dtypes = pytest.mark.parametrize("dtype", ["bf16", "fp16"])


def normal(*shape: int, dtype: str, scale: float = 1.0) -> torch.Tensor:
    return (torch.randn(*shape) * scale).to(DTYPES[dtype])


@both_dtypes
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("rows", "splits"), [(1, 1), (17, 2), (40, 3)])
def test_split_gemm(dtype, residual, rows, splits):
    columns, depth = 128, 384
    a = {
        "output": poisoned(rows, columns, dtype=dtype),
        "input": normal(rows, depth, dtype=dtype),
        "weight": normal(columns, depth, dtype=dtype, scale=0.05),
        "residual": normal(rows, columns, dtype=dtype) if residual else None,
        "partials": poisoned(columns * splits * 64, dtype="fp32"),
        "counters": torch.zeros(columns // 64, dtype=torch.int32),
        "rows": rows,
        "columns": columns,
        "depth": depth,
        "splits": splits,
    }
    run(SPLIT_GEMM, {"dtype": dtype}, {"ADD_RESIDUAL": residual}, a)
    reference = a["input"].double() @ a["weight"].double().T + (a["residual"].double() if residual else 0)
    assert error(a["output"], reference) < TOLERANCES[dtype]
    assert not a["counters"].any()  # as the next launch needs them


@both_dtypes
@pytest.mark.parametrize(
    ("values", "groups", "has_minimum"), [("int8", 1, False), ("int8", 6, False), ("int4", 6, False), ("int4", 3, True)]
)
def test_weight_only_gemm(dtype, values, groups, has_minimum):
    rows, columns, depth = 5, 40, 192
    q = torch.randint(-128, 128, (columns, depth if values == "int8" else depth // 2), dtype=torch.int8)
    scale, minimum = torch.rand(columns, groups) * 0.01, torch.randn(columns, groups) * 0.1
    if values == "int8":
        integers = q.double()
    else:
        nibbles = q.view(torch.uint8)
        integers = torch.stack([nibbles & 15, nibbles >> 4], 2).reshape(columns, depth).double()
    zero = 8 if values == "int4" and not has_minimum else 0
    expanded = [each.double().repeat_interleave(depth // groups, 1) for each in (scale, minimum)]
    weight = expanded[0] * (integers - zero) + (expanded[1] if has_minimum else 0)
    a = {
        "output": poisoned(rows, columns, dtype=dtype),
        "input": normal(rows, depth, dtype=dtype),
        "weight": q,
        "scale": scale,
        "minimum": minimum if has_minimum else None,
        "residual": normal(rows, columns, dtype=dtype),
        "rows": rows,
        "columns": columns,
        "depth": depth,
        "groups": groups,
        "group_size": depth // groups,
    }
    run(WEIGHT_ONLY_GEMM, {"dtype": dtype}, {"VALUES": values, "HAS_MINIMUM": has_minimum, "ADD_RESIDUAL": True}, a)
    reference = a["input"].double() @ weight.T + a["residual"].double()
    assert error(a["output"], reference) < 2 * TOLERANCES[dtype]  # weights, too, are rounded
