"""GGUF files of transformers models, as llama.cpp's convert_hf_to_gguf.py writes them."""

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as GgmlType
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

MODULES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
OTHERS = {"model.embed_tokens.": "token_embd.", "model.norm.": "output_norm.", "lm_head.": "output."}

TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]

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

# Where each type's float16 scales are, so that random blocks have the size of weights.
SCALES = {
    GgmlType.Q5_0: (0,),
    GgmlType.Q5_1: (0, 2),
    GgmlType.Q2_K: (80, 82),
    GgmlType.Q3_K: (108,),
    GgmlType.Q4_K: (0, 2),
    GgmlType.Q5_K: (0, 2),
    GgmlType.Q6_K: (208,),
    GgmlType.TQ1_0: (52,),
    GgmlType.TQ2_0: (64,),
    GgmlType.IQ1_S: (0,),
    GgmlType.IQ1_M: (),  # spread over the high bits of its scales
    GgmlType.IQ2_XXS: (0,),
    GgmlType.IQ2_XS: (0,),
    GgmlType.IQ2_S: (0,),
    GgmlType.IQ3_XXS: (0,),
    GgmlType.IQ3_S: (0,),
    GgmlType.IQ4_NL: (0,),
    GgmlType.IQ4_XS: (0,),
    GgmlType.MXFP4: (),
    GgmlType.NVFP4: (),
}


def make(name: str):
    """The transformers model of one of CONFIGS, the same weights at every call."""
    torch.manual_seed(len(name))
    return AutoModelForCausalLM.from_config(CONFIGS[name], dtype=torch.float32)


def gguf_name(name: str) -> str:
    """model.layers.3.mlp.up_proj.weight → blk.3.ffn_up.weight"""
    for prefix, replacement in OTHERS.items():
        if name.startswith(prefix):
            return replacement + name.removeprefix(prefix)
    layer, module = name.removeprefix("model.layers.").split(".", 1)
    module, kind = module.rsplit(".", 1)
    return f"blk.{layer}.{MODULES[module]}.{kind}"


def permute(values: np.ndarray, heads: int) -> np.ndarray:
    """What llama.cpp does to llama's queries and keys, [heads * head_size, ...]."""
    shape = values.shape
    return values.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def write(
    path: Path,
    model,
    types: GgmlType | Callable[[str], GgmlType] = GgmlType.F32,
    edit: Callable[[gguf.GGUFWriter], None] = lambda writer: None,
    replace: Callable[[str, np.ndarray], np.ndarray | None] = lambda name, values: None,
    tokens: list[str] | None = None,
    blocks: dict[str, tuple[np.ndarray, GgmlType]] | None = None,
) -> Path:
    """Writes a transformers model as GGUF.

    types: of the matrices, by GGUF name; vectors stay F32. edit: adds or changes metadata before writing.
    blocks: packed bytes and their type instead of the model's values, for types that gguf cannot quantize to.
    """
    config = model.config
    arch = "llama" if config.model_type == "mistral" else config.model_type
    writer = gguf.GGUFWriter(path, arch)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_rope_dimension_count(head_size)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    tokens = tokens or TOKENS
    tokens = tokens + [f"[PAD{i}]" for i in range(len(tokens), config.vocab_size)]
    kinds = [2, 3, 3, *[6] * 256]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens[: config.vocab_size])
    writer.add_token_scores([0.0] * config.vocab_size)
    writer.add_token_types((kinds + [5] * config.vocab_size)[: config.vocab_size])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    edit(writer)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        target, values = gguf_name(name), tensor.float().numpy()
        if blocks and target in blocks:
            data, kind = blocks[target]
            writer.add_tensor(target, data, raw_dtype=kind)
            continue
        if arch == "llama" and ".attn_q." in target:
            values = permute(values, config.num_attention_heads)
        if arch == "llama" and ".attn_k." in target:
            values = permute(values, config.num_key_value_heads)
        replaced = replace(target, values)
        values = values if replaced is None else replaced
        kind = GgmlType.F32 if values.ndim == 1 else types(target) if callable(types) else types
        writer.add_tensor(target, gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_blocks(kind, rows, columns, seed):
    """Blocks of any bytes, with scales of a weight's size."""
    block_size, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    generator = np.random.default_rng(seed)
    shape = (rows, columns // block_size)
    blocks = generator.integers(0, 256, (*shape, block_bytes), dtype=np.uint8)
    for position in SCALES[kind]:
        scales = generator.uniform(-1e-3, 1e-3, (*shape, 1)).astype(np.float16)
        blocks[..., position : position + 2] = scales.view(np.uint8)
    if kind == GgmlType.MXFP4:
        blocks[..., 0] = generator.integers(110, 125, shape)
    if kind == GgmlType.IQ1_M:
        blocks[..., 49:56:2] = blocks[..., 49:56:2] & 15 | np.array([0, 0, 0x30, 0x20], np.uint8) << 1
    return blocks.reshape(rows, -1)
