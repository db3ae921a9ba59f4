"""Norms, activations, embedding and quantization against float64."""

import pytest
import torch
from interpreted_kernels import DTYPES, TOLERANCES, error, poisoned, run

from inflight.kernels.activation import GATED_ACTIVATION
from inflight.kernels.embedding import EMBEDDING
from inflight.kernels.norm import LAYER_NORM, RMS_NORM
from inflight.kernels.quantization import QUANTIZE_TOKENS

both_dtypes = pytest.mark.parametrize("dtype", ["bf16", "fp16"])


def normal(*shape: int, dtype: str, scale: float = 1.0) -> torch.Tensor:
    return (torch.randn(*shape) * scale).to(DTYPES[dtype])


def norm_arguments(dtype: str, rows: int, size: int, residual: bool) -> dict:
    return {
        "output": poisoned(rows, size, dtype=dtype),
        "sum_output": poisoned(rows, size, dtype=dtype) if residual else None,
        "input": normal(rows, size, dtype=dtype),
        "residual": normal(rows, size, dtype=dtype, scale=3.0) if residual else None,
        "weight": torch.rand(size) + 0.5,
        "rows": rows,
        "size": size,
        "epsilon": 1e-5,
    }


def normalized_input(a: dict) -> torch.Tensor:
    """What is normalized, in float64; with a residual, checks the rounded sum that the kernel hands on."""
    if a["residual"] is None:
        return a["input"].double()
    # Triton's interpreter cuts bfloat16 off where a GPU rounds to nearest.
    dtype = next(name for name, value in DTYPES.items() if value == a["input"].dtype)
    assert error(a["sum_output"], a["input"].double() + a["residual"].double()) < TOLERANCES[dtype]
    return a["sum_output"].double()


@both_dtypes
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("size", [576, 1040])
def test_rms_norm(dtype, residual, size):
    a = norm_arguments(dtype, 3, size, residual)
    run(RMS_NORM, {"dtype": dtype}, {"ADD_RESIDUAL": residual}, a)
    x = normalized_input(a)
    reference = x / (x.square().mean(1, keepdim=True) + 1e-5).sqrt() * a["weight"].double()
    assert error(a["output"], reference) < TOLERANCES[dtype]


@both_dtypes
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_layer_norm(dtype, residual, with_bias):
    a = norm_arguments(dtype, 3, 576, residual) | {"bias": torch.randn(576) if with_bias else None}
    a["input"] += 2.0  # a mean that counts
    run(LAYER_NORM, {"dtype": dtype}, {"ADD_RESIDUAL": residual, "ADD_BIAS": with_bias}, a)
    x = normalized_input(a)
    bias = a["bias"].double() if with_bias else None
    reference = torch.nn.functional.layer_norm(x, (576,), a["weight"].double(), bias, 1e-5)
    assert error(a["output"], reference) < TOLERANCES[dtype]


def test_norm_in_place():
    a = norm_arguments("bf16", 2, 64, True)
    aside = {name: tensor.clone() for name, tensor in a.items() if isinstance(tensor, torch.Tensor)}
    run(RMS_NORM, {"dtype": "bf16"}, {"ADD_RESIDUAL": True}, a)
    b = a | aside | {"output": aside["input"], "sum_output": aside["residual"]}
    run(RMS_NORM, {"dtype": "bf16"}, {"ADD_RESIDUAL": True}, b)
    assert torch.equal(a["output"], b["input"]) and torch.equal(a["sum_output"], b["residual"])


ACTIVATIONS = {
    "silu": torch.nn.functional.silu,
    "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "gelu_erf": torch.nn.functional.gelu,
    "relu_squared": lambda x: x.relu().square(),
}


@both_dtypes
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(dtype, gated, name):
    rows, size = 3, 1040
    x = normal(rows, size * (1 + gated), dtype=dtype, scale=4.0)
    output = poisoned(rows, size, dtype=dtype)
    run(
        GATED_ACTIVATION,
        {"dtype": dtype},
        {"ACTIVATION": name, "GATED": gated},
        {"output": output, "input": x, "rows": rows, "size": size},
    )
    reference = ACTIVATIONS[name](x.double()[:, :size])
    assert error(output, reference * x.double()[:, size:] if gated else reference) < TOLERANCES[dtype]


def test_activation_of_large_values_is_finite():
    x = torch.tensor([[-3e4, -100.0, 100.0, 3e4] * 4], dtype=torch.float16)
    for name in ("silu", "gelu_tanh", "gelu_erf"):
        output = poisoned(1, 16, dtype="fp16")
        run(
            GATED_ACTIVATION,
            {"dtype": "fp16"},
            {"ACTIVATION": name, "GATED": False},
            {"output": output, "input": x, "rows": 1, "size": 16},
        )
        assert torch.equal(output, x.clamp(min=0)), name


@both_dtypes
def test_embedding_of_a_range_of_the_vocabulary(dtype):
    table, ids = normal(10, 1040, dtype=dtype), torch.tensor([7, 16, 6, 17, -1, 2**30], dtype=torch.int32)
    output = poisoned(6, 1040, dtype=dtype)
    run(
        EMBEDDING,
        {"dtype": dtype},
        {},
        {
            "output": output,
            "table": table,
            "ids": ids,
            "tokens": 6,
            "size": 1040,
            "first_id": 7,
            "num_ids": 10,
            "scale": 2.0,
        },
    )
    reference = torch.zeros(6, 1040, dtype=torch.float64)
    reference[0], reference[1] = 2.0 * table[0].double(), 2.0 * table[9].double()
    assert torch.equal(output, reference.to(DTYPES[dtype]))


@both_dtypes
@pytest.mark.parametrize("quantized", ["i8", "fp8e4nv"])
def test_quantization(dtype, quantized):
    x = normal(4, 1040, dtype=dtype, scale=5.0)
    x[2] = 0.0
    output, scales = poisoned(4, 1040, dtype=quantized), torch.full((4,), float("nan"))
    run(
        QUANTIZE_TOKENS,
        {"dtype": dtype, "quantized": quantized},
        {},
        {"output": output, "scales": scales, "input": x, "rows": 4, "size": 1040},
    )
    limit = 127.0 if quantized == "i8" else 448.0
    expected = x.float().abs().amax(1) / limit
    expected[2] = 1.0
    torch.testing.assert_close(scales, expected)
    assert (output[2].float() == 0).all()
    restored = output.double() * scales.double()[:, None]
    if quantized == "i8":  # within half a step of each row's scale
        assert ((restored - x.double()).abs() <= 0.5001 * scales.double()[:, None]).all()
    else:
        assert error(restored, x.double()) < 0.12  # the interpreter cuts off
