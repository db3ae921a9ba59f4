"""GGUF metadata → ModelConfig. Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md."""

import math
from typing import Any

import numpy as np

from inflight.checkpoint.config import FORMAT, MAX_LAYERS, VERSION, ModelConfig
from inflight.checkpoint.gguf.file import GgufFile
from inflight.checkpoint.gguf.special_tokens import SpecialTokens
from inflight.errors import InflightError
from inflight.fields import Fields

ARCHITECTURES = ("llama", "qwen2", "qwen3")  # mistral models call themselves llama
# What Llama 3.1, 3.2 and 3.3 are scaled with; any triple of the same ratios gives the same factors.
_LLAMA3_ORIGINAL_CONTEXT = 8192
_LLAMA3_FREQUENCY_FACTORS = (1.0, 4.0)


def architecture_of(file: GgufFile) -> str:
    """Raises InflightError for one that is not supported, and for a file that is only a part of a model."""
    general = Fields(file.metadata, str(file.path))
    if (parts := general.integer("split.count", default=0)) > 1:
        raise InflightError(f"{file.path} is one of {parts} parts: join them with `llama-gguf-split --merge` first")
    return general.choice("general.architecture", ARCHITECTURES)


def load_config(file: GgufFile, special: SpecialTokens, dtype: str) -> ModelConfig:
    """Raises InflightError naming the file and the key for whatever is not supported or does not fit."""
    architecture = architecture_of(file)
    metadata = _of_architecture(file, architecture)
    if metadata.integer("expert_count", default=0):
        metadata.fail("expert_count", "0: mixtures of experts are not supported")
    heads = metadata.integer("attention.head_count", minimum=1)
    hidden = metadata.integer("embedding_length", minimum=1)
    head_size = metadata.integer("attention.key_length", minimum=2, default=hidden // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if metadata.integer(key, default=head_size) != head_size:
            metadata.fail(key, f"the head size ({head_size}): no other is supported")
    if "token_embd.weight" not in file.tensors:
        raise InflightError(f"{file.path}: tensor token_embd.weight is missing")
    vocab_size = file.tensors["token_embd.weight"].shape[0]
    layers = metadata.integer("block_count", minimum=1, maximum=MAX_LAYERS)
    fields = {
        "format": FORMAT,
        "version": VERSION,
        "model_type": architecture,
        "dtype": dtype,
        "vocab_size": vocab_size,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.integer("attention.head_count_kv", minimum=1, default=heads),
        "head_size": head_size,
        "intermediate_size": metadata.integer("feed_forward_length", minimum=1),
        "max_position_embeddings": metadata.integer("context_length", minimum=1),
        "norm_epsilon": _shortest_float32(metadata.number("attention.layer_norm_rms_epsilon", below=1.0)),
        "hidden_act": "silu",
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "qkv_bias": "blk.0.attn_q.bias" in file.tensors,
        "dense_bias": "blk.0.attn_output.bias" in file.tensors,
        "mlp_bias": "blk.0.ffn_down.bias" in file.tensors,
        "qk_norm": "blk.0.attn_q_norm.weight" in file.tensors,
        "rope": _rope(file, metadata, head_size),
        "layer_windows": [metadata.integer("attention.sliding_window", default=0)] * layers,
        **_special_ids(special),
        "mapping": {"world_size": 1, "tp_size": 1, "pp_size": 1},
    }
    return ModelConfig.from_dict(fields, str(file.path))


def _of_architecture(file: GgufFile, architecture: str) -> Fields:
    """The keys of one architecture; where there is a value for each layer, and all are equal, that value."""
    prefix = f"{architecture}."
    values = dict(file.metadata)
    for key, value in values.items():
        if key.startswith(prefix) and isinstance(value, np.ndarray) and value.size and (value == value[0]).all():
            values[key] = value[0].item()
    return Fields(values, str(file.path), prefix)


def _rope(file: GgufFile, metadata: Fields, head_size: int) -> dict[str, Any]:
    theta = _shortest_float32(metadata.number("rope.freq_base", default=10000.0))
    scaling = metadata.text("rope.scaling.type", default="linear" if "rope.scale_linear" in metadata else "none")
    factor = metadata.number("rope.scaling.factor", default=metadata.number("rope.scale_linear", default=1.0))
    factor = _shortest_float32(factor)
    if "rope_freqs.weight" in file.tensors:
        factors = file.tensors["rope_freqs.weight"]
        if factors.type.name != "F32" or factors.shape != (head_size // 2,):
            raise InflightError(
                f"{file.path}: tensor rope_freqs.weight is {factors.type.name} {list(factors.shape)}; "
                f"expected F32 [{head_size // 2}]"
            )
        if scaling != "none":
            raise InflightError(f"{file.path}: both rope_freqs.weight and rope.scaling.type {scaling!r} are set")
        return _rope_from_factors(file, factors.data.reshape(-1).view("<f4"), theta)
    if scaling == "none" or (scaling == "linear" and factor == 1.0):
        return {"type": "default", "theta": theta}
    if scaling == "linear":
        return {"type": "linear", "theta": theta, "factor": factor}
    if scaling == "yarn":
        rope = {
            "type": "yarn",
            "theta": theta,
            "factor": factor,
            "original_max_position_embeddings": metadata.integer(
                "rope.scaling.original_context_length", minimum=1, default=metadata.integer("context_length")
            ),
        }
        attention = metadata.number("rope.scaling.attn_factor", default=1.0)
        if attention != 1.0:  # llama.cpp multiplies YaRN's own factor by it
            rope["attention_factor"] = attention * (0.1 * math.log(factor) + 1.0)
        for key in ("beta_fast", "beta_slow"):
            if f"rope.scaling.yarn_{key}" in metadata:
                rope[key] = _shortest_float32(metadata.number(f"rope.scaling.yarn_{key}"))
        return rope
    raise InflightError(f"{file.path}: rope.scaling.type is {scaling!r}; supported are none, linear and yarn")


def _rope_from_factors(file: GgufFile, factors: np.ndarray, theta: float) -> dict[str, Any]:
    """The Llama 3 scaling whose divisors of the frequencies `factors` are.

    Between the unscaled and the fully scaled frequencies the inverse of the divisor is linear in the
    frequency, so two points there give the line; without two, the published parameters are tried.
    Whatever comes out must reproduce the factors.
    """
    if not (np.isfinite(factors).all() and (factors >= 1).all()):
        raise InflightError(f"{file.path}: tensor rope_freqs.weight holds what is no divisor of a frequency")
    if (factors == 1).all():
        return {"type": "default", "theta": theta}
    factor = float(factors.max())
    frequencies = theta ** (-np.arange(len(factors), dtype=np.float64) / len(factors)) / (2 * math.pi)
    between = (factors > 1) & (factors < factor)
    low, high = _LLAMA3_FREQUENCY_FACTORS
    candidates = [(low, high)]
    if between.sum() >= 2:
        smooth = (1 / factors[between].astype(np.float64) - 1 / factor) / (1 - 1 / factor)
        slope, intercept = np.polyfit(frequencies[between] * _LLAMA3_ORIGINAL_CONTEXT, smooth, 1)
        if slope > 0:
            candidates.append((float(-intercept / slope), float((1 - intercept) / slope)))
    for low, high in candidates:
        smooth = np.clip((frequencies * _LLAMA3_ORIGINAL_CONTEXT - low) / (high - low), 0, 1)
        if np.allclose(1 / ((1 - smooth) / factor + smooth), factors, rtol=1e-4):
            return {
                "type": "llama3",
                "theta": theta,
                "factor": factor,
                "original_max_position_embeddings": _LLAMA3_ORIGINAL_CONTEXT,
                "low_freq_factor": low,
                "high_freq_factor": high,
            }
    raise InflightError(f"{file.path}: tensor rope_freqs.weight is no Llama 3 RoPE scaling; no other is supported")


def _special_ids(special: SpecialTokens) -> dict[str, Any]:
    end_ids = special.end_ids()
    pad_id = special.padding_id()
    if pad_id is None:
        pad_id = end_ids[0] if end_ids else 0
    return {"end_ids": end_ids, "pad_id": pad_id, "bos_id": special.id("bos_token_id")}


def _shortest_float32(value: float) -> float:
    """GGUF keeps float32: 1e-5 comes as 9.999999747378752e-06. The shortest decimal that rounds to it."""
    with np.errstate(over="ignore"):  # to infinity, which the configuration's own check refuses
        return float(str(np.float32(value)))
