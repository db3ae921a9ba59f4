"""GGUF metadata → ModelConfig. Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md."""

import math
from typing import Any

import numpy as np

from inflight.checkpoint.config import FORMAT, VERSION, ModelConfig
from inflight.checkpoint.gguf_file import GgufFile
from inflight.checkpoint.sentencepiece_bpe import PieceType
from inflight.errors import InflightError

ARCHITECTURES = ("llama", "qwen2", "qwen3")  # mistral models call themselves llama
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
# GGUF has one end id of each kind; models have more. llama.cpp finds the rest by these texts, and so do we.
_END_TOKENS = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", "<|end_of_text|>")
# What Llama 3.1, 3.2 and 3.3 are scaled with; any triple of the same ratios gives the same factors.
_LLAMA3_ORIGINAL_CONTEXT = 8192
_LLAMA3_FREQUENCY_FACTORS = (1.0, 4.0)


class Metadata:
    """Typed access to the keys of one architecture. Raises InflightError naming file, key, expected, found."""

    def __init__(self, file: GgufFile, architecture: str):
        self._file = file
        self._architecture = architecture

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        """The value of `{architecture}.{key}`; required when there is no default."""
        full_key = f"{self._architecture}.{key}"
        value = self._file.metadata.get(full_key, default)
        if value is None:
            raise InflightError(f"{self._file.path}: metadata key {full_key} is missing")
        if kind is int and isinstance(value, np.ndarray) and value.size and (value == value[0]).all():
            value = value[0].item()  # one value a layer, all equal
        accepted = (int, float) if kind is float else kind
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise InflightError(f"{self._file.path}: {full_key} is {value!r}; expected {kind.__name__}")
        return kind(value)

    def __contains__(self, key: str) -> bool:
        return f"{self._architecture}.{key}" in self._file.metadata


def load_config(file: GgufFile, dtype: str) -> ModelConfig:
    """Raises InflightError naming the file and the key for whatever is not supported or does not fit."""
    architecture = file.metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise InflightError(
            f"{file.path}: general.architecture is {architecture!r}; supported are {', '.join(ARCHITECTURES)}"
        )
    metadata = Metadata(file, architecture)
    if file.metadata.get("split.count", 0) not in (0, 1):
        raise InflightError(
            f"{file.path} is one of {file.metadata['split.count']} parts: "
            "join them with `llama-gguf-split --merge` first"
        )
    if metadata.get("expert_count", int, 0):
        raise InflightError(f"{file.path}: {architecture}.expert_count is set; mixtures of experts are not supported")
    heads = metadata.get("attention.head_count", int)
    hidden = metadata.get("embedding_length", int)
    head_size = metadata.get("attention.key_length", int, hidden // heads if heads else 0)
    for key in ("attention.value_length", "rope.dimension_count"):
        size = metadata.get(key, int, head_size)
        if size != head_size:
            raise InflightError(
                f"{file.path}: {architecture}.{key} is {size}; only the head size ({head_size}) is supported"
            )
    if "token_embd.weight" not in file.tensors:
        raise InflightError(f"{file.path}: tensor token_embd.weight is missing")
    vocab_size = file.tensors["token_embd.weight"].shape[0]
    layers = metadata.get("block_count", int)
    fields = {
        "format": FORMAT,
        "version": VERSION,
        "model_type": architecture,
        "dtype": dtype,
        "vocab_size": vocab_size,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.get("attention.head_count_kv", int, heads),
        "head_size": head_size,
        "intermediate_size": metadata.get("feed_forward_length", int),
        "max_position_embeddings": metadata.get("context_length", int),
        "norm_epsilon": _shortest_float32(metadata.get("attention.layer_norm_rms_epsilon", float)),
        "hidden_act": "silu",
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "qkv_bias": "blk.0.attn_q.bias" in file.tensors,
        "dense_bias": "blk.0.attn_output.bias" in file.tensors,
        "mlp_bias": "blk.0.ffn_down.bias" in file.tensors,
        "qk_norm": "blk.0.attn_q_norm.weight" in file.tensors,
        "rope": _rope(file, metadata, head_size),
        "layer_windows": [metadata.get("attention.sliding_window", int, 0)] * layers,
        **_special_ids(file),
        "mapping": {"world_size": 1, "tp_size": 1, "pp_size": 1},
    }
    return ModelConfig.from_dict(fields, str(file.path))


def _rope(file: GgufFile, metadata: Metadata, head_size: int) -> dict[str, Any]:
    theta = _shortest_float32(metadata.get("rope.freq_base", float, 10000.0))
    context = metadata.get("context_length", int)
    scaling = metadata.get("rope.scaling.type", str, "linear" if "rope.scale_linear" in metadata else "none")
    factor = _shortest_float32(
        metadata.get("rope.scaling.factor", float, metadata.get("rope.scale_linear", float, 1.0))
    )
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
            "original_max_position_embeddings": metadata.get("rope.scaling.original_context_length", int, context),
        }
        attention = metadata.get("rope.scaling.attn_factor", float, 1.0)
        if attention != 1.0:  # llama.cpp multiplies YaRN's own factor by it
            rope["attention_factor"] = attention * (0.1 * math.log(factor) + 1.0)
        for key in ("beta_fast", "beta_slow"):
            if f"rope.scaling.yarn_{key}" in metadata:
                rope[key] = _shortest_float32(metadata.get(f"rope.scaling.yarn_{key}", float))
        return rope
    raise InflightError(f"{file.path}: rope.scaling.type is {scaling!r}; supported are none, linear and yarn")


def _rope_from_factors(file: GgufFile, factors: np.ndarray, theta: float) -> dict[str, Any]:
    """The Llama 3 scaling whose divisors of the frequencies `factors` are.

    Between the unscaled and the fully scaled frequencies the inverse of the divisor is linear in the
    frequency, so two points there give the line; without two, the published parameters are tried.
    Whatever comes out must reproduce the factors.
    """
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


def _special_ids(file: GgufFile) -> dict[str, Any]:
    metadata = file.metadata
    end_ids = [metadata[f"tokenizer.ggml.{key}"] for key in _END_KEYS if f"tokenizer.ggml.{key}" in metadata]
    tokens, types = metadata.get("tokenizer.ggml.tokens", []), metadata.get("tokenizer.ggml.token_type", [])
    if isinstance(tokens, list) and isinstance(types, np.ndarray):  # gguf_tokenizer refuses anything else
        control = np.flatnonzero(types == PieceType.CONTROL).tolist()
        end_ids += [token_id for token_id in control if token_id < len(tokens) and tokens[token_id] in _END_TOKENS]
    end_ids = list(dict.fromkeys(end_ids))
    pad_id = metadata.get("tokenizer.ggml.padding_token_id", end_ids[0] if end_ids else 0)
    return {"end_ids": end_ids, "pad_id": pad_id, "bos_id": metadata.get("tokenizer.ggml.bos_token_id")}


def _shortest_float32(value: float) -> float:
    """GGUF keeps float32: 1e-5 comes as 9.999999747378752e-06. The shortest decimal that rounds to it."""
    return float(str(np.float32(value)))
