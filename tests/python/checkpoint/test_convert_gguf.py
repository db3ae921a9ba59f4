"""GGUF file → checkpoint: quantized weights without loss, metadata as transformers reads it."""

import checkpoint_weights
import gguf
import gguf_models
import numpy as np
import pytest
import torch
from checkpoint_weights import convert
from gguf import GGMLQuantizationType as GgmlType
from safetensors.torch import load_file

from inflight.errors import InflightError


@pytest.mark.parametrize("name", gguf_models.CONFIGS)
def test_weights_arrive_unchanged_and_in_rotate_half_order(name, tmp_path):
    model = gguf_models.make(name)
    config, stored = convert(gguf_models.write(tmp_path / "model.gguf", model), tmp_path)
    expected = checkpoint_weights.expected(model)
    assert stored.keys() == expected.keys()
    assert all(torch.equal(stored[key], expected[key]) for key in expected)
    assert config.model_type == model.config.model_type
    assert config.rope == {"type": "default", "theta": 10000.0}
    assert config.norm_epsilon == 1e-6
    assert (config.end_ids, config.pad_id, config.bos_id) == ([2], 2, 1)


LOSSLESS = {
    GgmlType.F16: ("float16", torch.float16, 0),
    GgmlType.BF16: ("bfloat16", torch.bfloat16, 0),
    GgmlType.Q8_0: ("int8", torch.int8, 32),
    GgmlType.Q4_0: ("int4", torch.uint8, 32),
    GgmlType.Q4_1: ("int4", torch.uint8, 32),
}


@pytest.mark.parametrize("kind", LOSSLESS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_types_are_carried_over_without_loss(kind, name, tmp_path):
    model = gguf_models.make(name)
    dtype, stored_dtype, group_size = LOSSLESS[kind]
    config, stored = convert(gguf_models.write(tmp_path / "model.gguf", model, kind), tmp_path)
    tensors = load_file(tmp_path / "out" / "rank0.safetensors")
    assert config.dtype == dtype
    for key, value in checkpoint_weights.expected(model).items():
        if value.ndim == 2:
            assert tensors[key].dtype == stored_dtype
            dequantized = gguf.dequantize(gguf.quantize(value.numpy(), kind), kind)
            assert np.array_equal(stored[key].numpy(), dequantized)
            if group_size:
                scale = tensors[key.replace(".weight", ".scale")]
                assert scale.shape == (value.shape[0], value.shape[1] // group_size)


def test_fused_parts_of_several_types_take_the_widest(model, tmp_path):
    kinds = {
        "blk.0.attn_v.weight": GgmlType.Q8_0,  # with Q4_0: int8, without loss
        "blk.0.ffn_up.weight": GgmlType.Q4_1,  # with Q4_0: int4 with minimums, without loss
        "blk.1.attn_v.weight": GgmlType.F16,
    }
    source = gguf_models.write(tmp_path / "model.gguf", model, lambda name: kinds.get(name, GgmlType.Q4_0))
    config, stored = convert(source, tmp_path)
    tensors = load_file(tmp_path / "out" / "rank0.safetensors")
    assert config.dtype == "int4"
    assert tensors["transformer.layers.0.attention.qkv.weight"].dtype == torch.int8
    assert tensors["transformer.layers.0.mlp.gate_up.weight"].dtype == torch.uint8
    assert "transformer.layers.0.mlp.gate_up.minimum" in tensors
    assert tensors["transformer.layers.1.attention.qkv.weight"].dtype == torch.float16
    values = {gguf_models.gguf_name(name): value.numpy() for name, value in model.state_dict().items()}

    def dequantized(name):
        kind = kinds.get(name, GgmlType.Q4_0)
        return gguf.dequantize(gguf.quantize(values[name], kind), kind)

    qkv = np.concatenate([dequantized(f"blk.0.attn_{part}.weight") for part in "qkv"])
    assert np.array_equal(stored["transformer.layers.0.attention.qkv.weight"].numpy(), qkv)
    gate_up = np.concatenate([dequantized(f"blk.0.ffn_{part}.weight") for part in ("gate", "up")])
    assert np.array_equal(stored["transformer.layers.0.mlp.gate_up.weight"].numpy(), gate_up)


def test_chosen_type_replaces_all_but_what_already_has_it(model, tmp_path):
    source = gguf_models.write(tmp_path / "model.gguf", model, GgmlType.Q4_0)
    convert(source, tmp_path, dtype="int4")
    tensors = load_file(tmp_path / "out" / "rank0.safetensors")
    assert "transformer.layers.0.mlp.down.minimum" not in tensors
    _, as_int8 = convert(source, tmp_path, dtype="int8")
    _, as_float = convert(source, tmp_path, dtype="float32")
    assert all(torch.equal(as_int8[key], as_float[key]) for key in as_float)


def rope_freqs(theta, head_size, factor, low, high, original):
    """As convert_hf_to_gguf.py computes it."""
    frequencies = theta ** (-np.arange(0, head_size, 2) / head_size)
    wavelengths = 2 * np.pi / frequencies
    smooth = (original / wavelengths - low) / (high - low)
    middle = 1 / ((1 - smooth) / factor + smooth)
    factors = np.where(wavelengths < original / high, 1, np.where(wavelengths > original / low, factor, middle))
    return factors.astype(np.float32)


@pytest.mark.parametrize(
    "theta, parameters",
    [
        (500000.0, (8.0, 1.0, 4.0, 8192)),
        (500000.0, (32.0, 1.0, 4.0, 8192)),
        (10000.0, (4.0, 2.0, 6.0, 4096)),
        (500000.0, (16.0, 1.0, 8.0, 16384)),
    ],
)
def test_llama3_scaling_is_recovered_from_rope_freqs(theta, parameters, model, tmp_path):
    head_size = 64
    factors = rope_freqs(theta, head_size, *parameters)

    def edit(writer):
        writer.add_tensor("rope_freqs.weight", factors)
        writer.kv_data[0]["llama.rope.freq_base"].value = theta

    config, _ = convert(gguf_models.write(tmp_path / "model.gguf", model, edit=edit), tmp_path)
    rope = config.rope
    assert rope["type"] == "llama3"
    recovered = [
        rope[key] for key in ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    ]
    assert np.allclose(rope_freqs(theta, head_size, *recovered), factors, rtol=1e-4)
    if parameters[1:] == (1.0, 4.0, 8192):
        assert recovered == list(parameters)


@pytest.mark.parametrize(
    "edit, rope",
    [
        (
            lambda writer: (
                writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR),
                writer.add_rope_scaling_factor(4.0),
            ),
            {"type": "linear", "theta": 10000.0, "factor": 4.0},
        ),
        (
            lambda writer: (
                writer.add_rope_scaling_type(gguf.RopeScalingType.YARN),
                writer.add_rope_scaling_factor(4.0),
                writer.add_rope_scaling_orig_ctx_len(32),
                writer.add_rope_scaling_yarn_beta_fast(16.0),
            ),
            {
                "type": "yarn",
                "theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 32,
                "beta_fast": 16.0,
            },
        ),
        (lambda writer: writer.add_rope_scaling_type(gguf.RopeScalingType.NONE), {"type": "default", "theta": 10000.0}),
    ],
)
def test_rope_scaling_keys(edit, rope, model, tmp_path):
    config, _ = convert(gguf_models.write(tmp_path / "model.gguf", model, edit=edit), tmp_path)
    assert config.rope == rope


def test_sliding_window_holds_for_every_layer(model, tmp_path):
    source = gguf_models.write(tmp_path / "model.gguf", model, edit=lambda writer: writer.add_sliding_window(48))
    assert convert(source, tmp_path)[0].layer_windows == [48, 48]


def drop(key):
    return lambda writer: writer.kv_data[0].pop(key)


def retype(key, value):
    """A value of another type."""

    def edit(writer):
        writer.kv_data[0].pop(key, None)
        add = {str: writer.add_string, int: writer.add_int32, float: writer.add_float32, list: writer.add_array}
        add[type(value)](key, value)

    return edit


def change(key, value):
    def edit(writer):
        writer.kv_data[0][key].value = value

    return edit


@pytest.mark.parametrize(
    "edit, message",
    [
        (
            change("general.architecture", "gemma2"),
            "general.architecture is 'gemma2'; expected one of llama, qwen2, qwen3",
        ),
        (drop("llama.block_count"), "llama.block_count is missing"),
        (drop("llama.attention.layer_norm_rms_epsilon"), "llama.attention.layer_norm_rms_epsilon is missing"),
        (change("llama.block_count", 3), "tensor blk.2.attn_q.weight of shape [256, 256] is missing"),
        (change("llama.block_count", 1), "has no tensor blk.1.attn_k.weight"),
        (
            change("llama.feed_forward_length", 512),
            "blk.0.ffn_gate.weight has shape [256, 256]; the metadata asks for [512, 256]",
        ),
        (
            change("llama.rope.dimension_count", 32),
            "llama.rope.dimension_count is 32; expected the head size (64)",
        ),
        (lambda writer: writer.add_expert_count(8), "llama.expert_count is 8; expected 0"),
        (lambda writer: writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE), "rope.scaling.type is 'longrope'"),
        (
            lambda writer: writer.add_tensor("rope_freqs.weight", np.linspace(1, 9, 32, dtype=np.float32) ** 2),
            "rope_freqs.weight is no Llama 3 RoPE scaling",
        ),
        (
            lambda writer: writer.add_tensor("rope_freqs.weight", np.ones(16, np.float32)),
            "rope_freqs.weight is F32 [16]",
        ),
        (
            lambda writer: writer.add_tensor("blk.0.attn_sinks.weight", np.ones(4, np.float32)),
            "has no tensor blk.0.attn_sinks.weight",
        ),
        (change("llama.block_count", 2**31), "llama.block_count is 2147483648; expected an integer of 1 to 10000"),
        (change("llama.attention.head_count", 0), "llama.attention.head_count is 0; expected an integer of at least 1"),
        (change("llama.attention.layer_norm_rms_epsilon", 2.0), "rms_epsilon is 2.0; expected a number above 0"),
        (change("llama.rope.freq_base", float("nan")), "llama.rope.freq_base is nan; expected a number above 0"),
        (change("tokenizer.ggml.eos_token_id", 320), "eos_token_id is 320; expected a token id below 320"),
        (retype("tokenizer.ggml.eos_token_id", [2, 3]), "tokenizer.ggml.eos_token_id is array([2, 3]"),
        (retype("tokenizer.ggml.bos_token_id", "<s>"), "tokenizer.ggml.bos_token_id is '<s>'; expected an integer"),
        (retype("tokenizer.ggml.padding_token_id", 1.5), "padding_token_id is 1.5; expected an integer"),
        (retype("llama.context_length", "long"), "llama.context_length is 'long'; expected an integer"),
        (retype("general.architecture", [1, 2]), "general.architecture is array([1, 2]"),
        (retype("tokenizer.ggml.scores", "x"), "tokenizer.ggml.scores is 'x'; expected 320 numbers"),
        (retype("tokenizer.chat_template", 3), "tokenizer.chat_template is 3; expected a string"),
        (change("tokenizer.ggml.model", "t5"), "tokenizer.ggml.model is 't5'; expected one of gpt2, llama"),
    ],
)
def test_refuses_by_name(edit, message, model, tmp_path):
    source = gguf_models.write(tmp_path / "model.gguf", model, edit=edit)
    with pytest.raises(InflightError) as error:
        convert(source, tmp_path)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert str(source) in str(error.value)
    assert not (tmp_path / "out").exists()


def test_smollm2(smollm2_gguf, tmp_path):
    config, stored = convert(smollm2_gguf, tmp_path)
    assert (config.model_type, config.dtype, config.end_ids) == ("llama", "int4", [2, 0])
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(smollm2_gguf).tensors}

    def values(name):
        return gguf.dequantize(tensors[f"{name}.weight"].data, tensors[f"{name}.weight"].tensor_type)

    assert np.array_equal(stored["transformer.vocab_embedding.weight"].numpy(), values("token_embd"))
    for layer in (0, 29):
        prefix = f"transformer.layers.{layer}"
        qkv = stored[f"{prefix}.attention.qkv.weight"].numpy()
        assert np.array_equal(gguf_models.permute(qkv[:576], 9), values(f"blk.{layer}.attn_q"))
        assert np.array_equal(gguf_models.permute(qkv[576:768], 3), values(f"blk.{layer}.attn_k"))
        assert np.array_equal(qkv[768:], values(f"blk.{layer}.attn_v"))
        assert np.array_equal(stored[f"{prefix}.mlp.down.weight"].numpy(), values(f"blk.{layer}.ffn_down"))
        assert np.array_equal(stored[f"{prefix}.mlp.gate_up.weight"].numpy()[1536:], values(f"blk.{layer}.ffn_up"))
