"""GGUF file → checkpoint: quantized weights without loss, metadata as transformers reads it."""

import struct

import checkpoint_weights
import gguf
import gguf_models
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as GgmlType
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

from inflight.checkpoint.convert import convert_checkpoint
from inflight.errors import InflightError

# K-quants come in blocks of 256 columns
SIZE = dict(
    vocab_size=320,
    hidden_size=256,
    intermediate_size=256,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    tie_word_embeddings=False,
)
CONFIGS = {
    "llama": LlamaConfig(**SIZE),
    "llama-tied": LlamaConfig(**{**SIZE, "tie_word_embeddings": True}),
    "llama-biases": LlamaConfig(**SIZE, attention_bias=True, mlp_bias=True),
    "qwen2": Qwen2Config(**SIZE),
    "qwen3": Qwen3Config(**SIZE, head_dim=128),
}
LLAMA3_ROPE = dict(
    rope_type="llama3",
    rope_theta=500000.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=8192,
)


def make_model(name):
    torch.manual_seed(len(name))
    return AutoModelForCausalLM.from_config(CONFIGS[name], dtype=torch.float32)


@pytest.fixture(scope="module")
def model():
    return make_model("llama")


def convert(source, tmp_path, **options):
    config = convert_checkpoint(source, tmp_path / "out", progress=False, **options)
    return config, checkpoint_weights.load(tmp_path / "out")


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_arrive_unchanged_and_in_rotate_half_order(name, tmp_path):
    model = make_model(name)
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
    model = make_model(name)
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


def random_blocks(kind, rows, columns, seed):
    """Blocks of any bytes, with scales of a weight's size."""
    _, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 256, (rows, columns // 256, block_bytes), dtype=np.uint8)
    positions = {GgmlType.Q4_K: (0, 2), GgmlType.Q5_K: (0, 2), GgmlType.Q6_K: (208,)}[kind]
    for position in positions:
        scales = generator.uniform(1e-4, 1e-3, (rows, columns // 256, 1)).astype(np.float16)
        blocks[..., position : position + 2] = scales.view(np.uint8)
    return blocks.reshape(rows, -1)


@pytest.mark.parametrize("kind", [GgmlType.Q4_K, GgmlType.Q5_K, GgmlType.Q6_K], ids=lambda kind: kind.name)
def test_k_quants(kind, model, tmp_path):
    packed = random_blocks(kind, 256, 256, seed=1)
    source = gguf_models.write(
        tmp_path / "model.gguf", model, GgmlType.Q4_0, blocks={"blk.1.ffn_down.weight": (packed, kind)}
    )
    _, stored = convert(source, tmp_path)
    tensors = load_file(tmp_path / "out" / "rank0.safetensors")
    name = "transformer.layers.1.mlp.down"
    expected = gguf.dequantize(packed, kind)
    found = stored[f"{name}.weight"].numpy()
    if kind == GgmlType.Q4_K:
        assert tensors[f"{name}.weight"].dtype == torch.uint8
        assert np.array_equal(found, expected)
    else:
        assert tensors[f"{name}.weight"].dtype == torch.int8
        step = np.abs(expected.reshape(256, -1, 32)).max(axis=-1) / 127
        assert (np.abs(found - expected).reshape(256, -1, 32).max(axis=-1) <= step * 0.501).all()


def test_quantized_queries_are_put_back_by_rows(model, tmp_path):
    """Rows of packed blocks move whole, which needs no dequantization."""
    packed = random_blocks(GgmlType.Q4_K, 256, 256, seed=2)
    blocks = {
        f"blk.0.attn_{part}.weight": (packed[:rows], GgmlType.Q4_K) for part, rows in dict(q=256, k=128, v=128).items()
    }
    _, stored = convert(gguf_models.write(tmp_path / "model.gguf", model, blocks=blocks), tmp_path)
    qkv = stored["transformer.layers.0.attention.qkv.weight"].numpy()
    values = gguf.dequantize(packed, GgmlType.Q4_K)
    assert np.array_equal(gguf_models.permute(qkv[:256], 4), values)
    assert np.array_equal(gguf_models.permute(qkv[256:384], 2), values[:128])
    assert np.array_equal(qkv[384:], values[:128])


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


def test_end_ids_are_those_of_the_metadata_and_llama_cpp_s_control_tokens(model, tmp_path):
    tokens = gguf_models.TOKENS + ["<|im_end|>", "<|eot_id|>"]

    def edit(writer):
        writer.add_eot_token_id(5)
        writer.kv_data[0]["tokenizer.ggml.token_type"].value = [2, 3, 3, *[6] * 256, 3, 1, *[5] * 59]

    config, _ = convert(gguf_models.write(tmp_path / "model.gguf", model, edit=edit, tokens=tokens), tmp_path)
    assert config.end_ids == [2, 5, tokens.index("<|im_end|>")]


def test_sliding_window_holds_for_every_layer(model, tmp_path):
    source = gguf_models.write(tmp_path / "model.gguf", model, edit=lambda writer: writer.add_sliding_window(48))
    assert convert(source, tmp_path)[0].layer_windows == [48, 48]


def drop(key):
    return lambda writer: writer.kv_data[0].pop(key)


def change(key, value):
    def edit(writer):
        writer.kv_data[0][key].value = value

    return edit


@pytest.mark.parametrize(
    "edit, message",
    [
        (
            change("general.architecture", "gemma2"),
            "general.architecture is 'gemma2'; supported are llama, qwen2, qwen3",
        ),
        (drop("llama.block_count"), "metadata key llama.block_count is missing"),
        (drop("llama.attention.layer_norm_rms_epsilon"), "llama.attention.layer_norm_rms_epsilon is missing"),
        (change("llama.block_count", 3), "tensor blk.2.attn_q.weight of shape [256, 256] is missing"),
        (change("llama.block_count", 1), "has no tensor blk.1.attn_k.weight"),
        (
            change("llama.feed_forward_length", 512),
            "blk.0.ffn_gate.weight has shape [256, 256]; the metadata asks for [512, 256]",
        ),
        (
            change("llama.rope.dimension_count", 32),
            "llama.rope.dimension_count is 32; only the head size (64) is supported",
        ),
        (lambda writer: writer.add_expert_count(8), "llama.expert_count is set"),
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
        (change("tokenizer.ggml.model", "t5"), "tokenizer.ggml.model is t5; expected gpt2"),
    ],
)
def test_refuses_by_name(edit, message, model, tmp_path):
    source = gguf_models.write(tmp_path / "model.gguf", model, edit=edit)
    with pytest.raises(InflightError) as error:
        convert(source, tmp_path)
    assert message in str(error.value)
    assert str(source) in str(error.value)
    assert not (tmp_path / "out").exists()


def test_refuses_types_that_it_cannot_read(model, tmp_path):
    source = gguf_models.write(
        tmp_path / "model.gguf", model, lambda name: GgmlType.Q5_0 if name == "blk.1.ffn_up.weight" else GgmlType.Q8_0
    )
    with pytest.raises(InflightError, match="tensor blk.1.ffn_up.weight has type Q5_0; supported are F32, F16, BF16"):
        convert(source, tmp_path)


@pytest.fixture(scope="module")
def valid_file(model, tmp_path_factory):
    return gguf_models.write(tmp_path_factory.mktemp("gguf") / "model.gguf", model, GgmlType.Q8_0).read_bytes()


@pytest.mark.parametrize("kept", [0, 3, 20, 100, 2000, 0.3, 0.99])
def test_refuses_truncated_files(kept, valid_file, tmp_path):
    source = tmp_path / "model.gguf"
    source.write_bytes(valid_file[: kept if isinstance(kept, int) else int(kept * len(valid_file))])
    with pytest.raises(InflightError, match="model.gguf.*(truncated|too short)"):
        convert(source, tmp_path)


def test_refuses_foreign_and_damaged_files(valid_file, tmp_path):
    source = tmp_path / "model.gguf"
    for data, message in [
        (b"PK\x03\x04" + bytes(100), "is not a GGUF file"),
        (b"GGUF\x00\x00\x00\x03" + bytes(100), "GGUF version is 50331648"),
        (valid_file[:8] + b"\xff" * 16 + valid_file[24:], "truncated or damaged"),
    ]:
        source.write_bytes(data)
        with pytest.raises(InflightError, match=message):
            convert(source, tmp_path)


def test_refuses_deeply_nested_arrays(tmp_path):
    source = tmp_path / "model.gguf"
    array_of_one_array = struct.pack("<IQ", 9, 1)
    metadata = struct.pack("<Q1sI", 1, b"x", 9) + array_of_one_array * 100_000
    source.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + metadata)
    with pytest.raises(InflightError, match="model.gguf: metadata nests arrays deeper than 8"):
        convert(source, tmp_path)


@pytest.mark.parametrize("seed", range(20))
def test_no_damage_to_the_header_ends_in_anything_but_an_error(seed, valid_file, tmp_path):
    generator = np.random.default_rng(seed)
    data = bytearray(valid_file)
    for position in generator.integers(4, 3000, 5):
        data[position] = generator.integers(0, 256)
    source = tmp_path / "model.gguf"
    source.write_bytes(data)
    try:
        convert(source, tmp_path)
    except InflightError as error:
        assert "model.gguf" in str(error)


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
