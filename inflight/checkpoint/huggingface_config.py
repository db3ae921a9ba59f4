"""Hugging Face config.json and generation_config.json → ModelConfig.

transformers' AutoConfig fills in each family's defaults and reads both spellings of RoPE scaling
(`rope_scaling`, and `rope_parameters` since transformers 5).
"""

import os
from pathlib import Path
from typing import Any

from inflight.checkpoint.config import FORMAT, MODEL_TYPES, ROPE_OPTIONAL_KEYS, ROPE_REQUIRED_KEYS, VERSION, ModelConfig
from inflight.errors import InflightError
from inflight.json_object import JsonObject

# Sizes that no default may stand in for.
_REQUIRED_KEYS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
_QUANTIZED_HINT = "convert the unquantized model (with --dtype int8 or int4) or a GGUF file instead"


def load_config(directory: Path, dtype: str) -> ModelConfig:
    """Reads a Hugging Face directory's configuration.

    Raises InflightError naming the file and the key for a model type, activation, attention or RoPE feature
    that is not supported, and for missing or malformed keys.
    """
    path = directory / "config.json"
    raw = JsonObject.load(path)
    raw.choice("model_type", MODEL_TYPES)
    for key in _REQUIRED_KEYS:
        raw.integer(key, minimum=1)
    if raw.values.get("quantization_config") is not None:
        raw.fail("quantization_config", f"none: {_QUANTIZED_HINT}")
    config = _auto_config(directory, path)
    if config.hidden_act not in ("silu", "swish"):
        raise InflightError(f"{path}: hidden_act is {config.hidden_act}; expected silu")
    heads = config.num_attention_heads
    attention_bias = bool(getattr(config, "attention_bias", False))
    fields = {
        "format": FORMAT,
        "version": VERSION,
        "model_type": config.model_type,
        "dtype": dtype,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": heads,
        "num_key_value_heads": config.num_key_value_heads or heads,
        "head_size": getattr(config, "head_dim", None) or config.hidden_size // heads,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "norm_epsilon": config.rms_norm_eps,
        "hidden_act": "silu",
        "tie_word_embeddings": bool(config.tie_word_embeddings),
        "qkv_bias": config.model_type == "qwen2" or attention_bias,
        "dense_bias": attention_bias,
        "mlp_bias": bool(getattr(config, "mlp_bias", False)),
        "qk_norm": config.model_type == "qwen3",
        "rope": _rope(config, path),
        "layer_windows": _layer_windows(config, path),
        **_special_ids(config, directory),
        "mapping": {"world_size": 1, "tp_size": 1, "pp_size": 1},
    }
    return ModelConfig.from_dict(fields, str(path))


def _auto_config(directory: Path, path: Path) -> Any:
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # its note that torch is missing
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises what its validators raise: TypeError, KeyError, its own
        raise InflightError(f"{path} is not a configuration that transformers understands: {error}") from error


def _rope(config: Any, path: Path) -> dict[str, Any]:
    parameters = config.rope_parameters
    rope_type = parameters.get("rope_type", "default")
    if rope_type not in ROPE_REQUIRED_KEYS:
        raise InflightError(f"{path}: RoPE type is {rope_type}; supported are {', '.join(ROPE_REQUIRED_KEYS)}")
    if parameters.get("partial_rotary_factor", 1.0) != 1.0:
        raise InflightError(
            f"{path}: partial_rotary_factor is {parameters['partial_rotary_factor']}; only 1 is supported"
        )
    rope: dict[str, Any] = {"type": rope_type, "theta": JsonObject(parameters, str(path)).number("rope_theta")}
    for key in (*ROPE_REQUIRED_KEYS[rope_type], *ROPE_OPTIONAL_KEYS.get(rope_type, ())):
        value = parameters.get(key)
        # transformers takes null, and 0 where a factor makes no sense, as absent
        if value is not None and (value or key == "truncate"):
            rope[key] = value
    return rope


def _layer_windows(config: Any, path: Path) -> list[int]:
    window = getattr(config, "sliding_window", None) or 0
    if config.model_type == "mistral":
        return [window] * config.num_hidden_layers
    if config.model_type == "llama":
        return [0] * config.num_hidden_layers
    windows = {"full_attention": 0, "sliding_attention": window}
    unknown = sorted(set(config.layer_types) - windows.keys())
    if unknown:
        raise InflightError(f"{path}: layer_types holds {', '.join(unknown)}; supported are {', '.join(windows)}")
    return [windows[layer_type] for layer_type in config.layer_types]


def _special_ids(config: Any, directory: Path) -> dict[str, Any]:
    """End, padding and start ids: generation_config.json's where it has them, as in transformers' generate."""
    path = directory / "generation_config.json"
    generation = JsonObject.load(path).values if path.is_file() else {}

    def first(key: str) -> Any:
        value = generation.get(key)
        return getattr(config, key, None) if value is None else value

    end_ids = first("eos_token_id")
    end_ids = [] if end_ids is None else end_ids if isinstance(end_ids, list) else [end_ids]
    pad_id = first("pad_token_id")
    if pad_id is None or pad_id < 0:  # some Llama configurations say -1 for "none"
        pad_id = end_ids[0] if end_ids else 0
    return {"end_ids": end_ids, "pad_id": pad_id, "bos_id": first("bos_token_id")}
