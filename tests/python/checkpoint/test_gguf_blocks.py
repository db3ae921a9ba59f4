"""GGML's types of quantized weights: each becomes what the checkpoint has for it, without loss where that holds it."""

import gguf
import gguf_models
import numpy as np
import pytest
import torch
from checkpoint_weights import convert
from gguf import GGMLQuantizationType as GgmlType
from safetensors.torch import load_file

from inflight.checkpoint.gguf.blocks import MATRIX_TYPES
from inflight.errors import InflightError

KEPT = {
    GgmlType.Q5_0: (torch.int8, 32),
    GgmlType.Q2_K: (torch.uint8, 16),
    GgmlType.Q3_K: (torch.uint8, 16),
    GgmlType.Q4_K: (torch.uint8, 32),
    GgmlType.IQ4_NL: (torch.int8, 32),
    GgmlType.IQ4_XS: (torch.int8, 32),
    GgmlType.MXFP4: (torch.int8, 32),
}


def test_every_type_that_gguf_dequantizes_is_read():
    floats = {GgmlType.F32, GgmlType.F16, GgmlType.BF16}
    assert MATRIX_TYPES.keys() == gguf.quants._type_traits.keys() | floats
    assert MATRIX_TYPES.keys() == gguf_models.SCALES.keys() | floats | {GgmlType.Q8_0, GgmlType.Q4_0, GgmlType.Q4_1}


@pytest.mark.parametrize("kind", gguf_models.SCALES, ids=lambda kind: kind.name)
def test_blocks_of_every_type(kind, model, tmp_path):
    packed = gguf_models.random_blocks(kind, 256, 256, seed=1)
    source = gguf_models.write(
        tmp_path / "model.gguf", model, GgmlType.Q4_0, blocks={"blk.1.ffn_down.weight": (packed, kind)}
    )
    _, stored = convert(source, tmp_path)
    tensors = load_file(tmp_path / "out" / "rank0.safetensors")
    name = "transformer.layers.1.mlp.down"
    expected = gguf.dequantize(packed, kind).astype(np.float32)
    assert np.isfinite(expected).all() and np.ptp(expected) > 0
    found = stored[f"{name}.weight"].numpy()
    dtype, group_size = KEPT.get(kind, (torch.int8, 32))
    assert tensors[f"{name}.weight"].dtype == dtype
    assert tensors[f"{name}.scale"].shape == (256, 256 // group_size)
    if kind in KEPT:
        assert np.array_equal(found, expected)
    else:
        step = np.abs(expected.reshape(256, -1, 32)).max(axis=-1) / 127
        assert (np.abs(found - expected).reshape(256, -1, 32).max(axis=-1) <= step * 0.501).all()


def test_fused_parts_with_scales_of_other_groups_keep_their_values(model, tmp_path):
    """As Q2_K and Q3_K files mix them: groups of 16 and of 32 columns, with and without minimums."""
    kinds = dict(q=GgmlType.Q3_K, k=GgmlType.Q2_K, v=GgmlType.Q4_K)
    rows = dict(q=256, k=128, v=128)
    packed = {part: gguf_models.random_blocks(kind, rows[part], 256, seed=3) for part, kind in kinds.items()}
    blocks = {f"blk.0.attn_{part}.weight": (packed[part], kind) for part, kind in kinds.items()}
    _, stored = convert(gguf_models.write(tmp_path / "model.gguf", model, blocks=blocks), tmp_path)
    qkv = stored["transformer.layers.0.attention.qkv.weight"].numpy()
    values = {part: gguf.dequantize(packed[part], kind) for part, kind in kinds.items()}
    assert np.allclose(gguf_models.permute(qkv[:256], 4), values["q"], rtol=0, atol=1e-7)
    assert np.array_equal(gguf_models.permute(qkv[256:384], 2), values["k"])
    assert np.array_equal(qkv[384:], values["v"])


def test_quantized_queries_are_put_back_by_rows(model, tmp_path):
    """Rows of packed blocks move whole, which needs no dequantization."""
    packed = gguf_models.random_blocks(GgmlType.Q4_K, 256, 256, seed=2)
    blocks = {
        f"blk.0.attn_{part}.weight": (packed[:rows], GgmlType.Q4_K) for part, rows in dict(q=256, k=128, v=128).items()
    }
    _, stored = convert(gguf_models.write(tmp_path / "model.gguf", model, blocks=blocks), tmp_path)
    qkv = stored["transformer.layers.0.attention.qkv.weight"].numpy()
    values = gguf.dequantize(packed, GgmlType.Q4_K)
    assert np.array_equal(gguf_models.permute(qkv[:256], 4), values)
    assert np.array_equal(gguf_models.permute(qkv[256:384], 2), values[:128])
    assert np.array_equal(qkv[384:], values[:128])


def test_refuses_types_that_it_cannot_read(model, tmp_path):
    source = gguf_models.write(
        tmp_path / "model.gguf", model, blocks={"blk.1.ffn_up.weight": (np.zeros((256, 256), np.int8), GgmlType.I8)}
    )
    with pytest.raises(InflightError, match="tensor blk.1.ffn_up.weight has type I8; supported are F32, F16, BF16"):
        convert(source, tmp_path)


def test_refuses_scales_that_are_not_finite(model, tmp_path):
    packed = gguf_models.random_blocks(GgmlType.Q5_0, 256, 256, seed=4)
    packed[3, :2] = np.array([np.nan], np.float16).view(np.uint8)
    source = gguf_models.write(
        tmp_path / "model.gguf", model, blocks={"blk.1.ffn_down.weight": (packed, GgmlType.Q5_0)}
    )
    with pytest.raises(InflightError, match="blk.1.ffn_down.weight, rows 0 to 256: the scales .* hold NaN"):
        convert(source, tmp_path)
