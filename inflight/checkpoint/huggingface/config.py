"""Hugging Face config.json and generation_config.json → ModelConfig.

transformers fills in each family's defaults and reads both spellings of RoPE scaling (`rope_scaling`, and
`rope_parameters` since transformers 5). It sees the fields below alone, each checked before: whatever else a file
holds cannot make it fail, or build a list of 2^40 entries.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from inflight.checkpoint.config import (
    FORMAT,
    MAX_LAYERS,
    MODEL_TYPES,
    ROPE_OPTIONAL_KEYS,
    ROPE_REQUIRED_KEYS,
    VERSION,
    ModelConfig,
)
from inflight.checkpoint.quiet_transformers import quiet_transformers
from inflight.errors import InflightError, cause
from inflight.fields import Fields
from inflight.json_object import JsonObject

_QUANTIZED_HINT = "convert the unquantized model (with --dtype int8 or int4) or a GGUF file instead"


def _size(fields: Fields, key: str) -> int:
    return fields.integer(key, minimum=1)


def _optional_size(fields: Fields, key: str) -> int | None:
    return fields.integer(key, minimum=1, default=None)


def _count(fields: Fields, key: str) -> int | None:
    return fields.integer(key, default=None)


def _number(fields: Fields, key: str) -> float | None:
    return fields.number(key, default=None)


def _flag(fields: Fields, key: str) -> bool | None:
    return fields.boolean(key, default=None)


def _rope_fields(fields: JsonObject, key: str) -> dict[str, Any] | None:
    return dict(fields.object(key).values) if key in fields else None


_Check = Callable[[JsonObject, str], Any]

# What the families' configurations read, each with its check; no default may stand in for the sizes.
_COMMON: dict[str, _Check] = {
    "vocab_size": _size,
    "hidden_size": _size,
    "intermediate_size": _size,
    "num_hidden_layers": lambda fields, key: fields.integer(key, minimum=1, maximum=MAX_LAYERS),
    "num_attention_heads": _size,
    "num_key_value_heads": _optional_size,
    "head_dim": _optional_size,
    "max_position_embeddings": _optional_size,
    "hidden_act": lambda fields, key: fields.text(key, default=None),
    "rms_norm_eps": lambda fields, key: fields.number(key, below=1.0, default=None),
    "tie_word_embeddings": _flag,
    "rope_theta": _number,
    "rope_scaling": _rope_fields,
    "rope_parameters": _rope_fields,
    "partial_rotary_factor": _number,
    "original_max_position_embeddings": _optional_size,
}
_WINDOWS: dict[str, _Check] = {
    "use_sliding_window": _flag,
    "sliding_window": _count,
    "max_window_layers": _count,
    "layer_types": lambda fields, key: fields.texts(key, default=None),
}
_BY_FAMILY: dict[str, dict[str, _Check]] = {
    "llama": {"attention_bias": _flag, "mlp_bias": _flag},
    "mistral": {"sliding_window": _count},
    "qwen2": _WINDOWS,
    "qwen3": {"attention_bias": _flag, **_WINDOWS},
}


def load_config(directory: Path, dtype: str) -> ModelConfig:
    """Reads a Hugging Face directory's configuration.

    Raises InflightError naming the file and the key for a model type, activation, attention or RoPE feature
    that is not supported, and for missing or malformed keys.
    """
    path = directory / "config.json"
    raw = JsonObject.load(path)
    model_type = raw.choice("model_type", MODEL_TYPES)
    if "quantization_config" in raw:
        raw.fail("quantization_config", f"none: {_QUANTIZED_HINT}")
    config = _family_config(model_type, raw)
    if config.hidden_act not in ("silu", "swish"):
        raise InflightError(f"{path}: hidden_act is {config.hidden_act}; expected silu")
    heads = config.num_attention_heads
    attention_bias = bool(getattr(config, "attention_bias", False))
    fields = {
        "format": FORMAT,
        "version": VERSION,
        "model_type": model_type,
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
        "qkv_bias": model_type == "qwen2" or attention_bias,
        "dense_bias": attention_bias,
        "mlp_bias": bool(getattr(config, "mlp_bias", False)),
        "qk_norm": model_type == "qwen3",
        "rope": _rope(config, path),
        "layer_windows": _layer_windows(config, path),
        **_special_ids(config, raw, directory),
        "mapping": {"world_size": 1, "tp_size": 1, "pp_size": 1},
    }
    return ModelConfig.from_dict(fields, str(path))


def _family_config(model_type: str, raw: JsonObject) -> Any:
    """transformers' configuration of the fields that the family reads."""
    checks = _COMMON | _BY_FAMILY[model_type]
    values = {key: check(raw, key) for key, check in checks.items()}
    given = {key: value for key, value in values.items() if key in raw.values}
    with quiet_transformers():
        from transformers import AutoConfig

        try:
            return AutoConfig.for_model(model_type, **given)
        except Exception as error:  # transformers raises what its validators raise: TypeError, KeyError, its own
            raise InflightError(
                f"{raw.origin} is not a configuration that transformers understands: {cause(error)}"
            ) from error


def _rope(config: Any, path: Path) -> dict[str, Any]:
    parameters = JsonObject(config.rope_parameters, str(path))
    rope_type = parameters.text("rope_type", default="default")
    if rope_type not in ROPE_REQUIRED_KEYS:
        raise InflightError(f"{path}: RoPE type is {rope_type}; supported are {', '.join(ROPE_REQUIRED_KEYS)}")
    if parameters.number("partial_rotary_factor", default=1.0) != 1.0:
        parameters.fail("partial_rotary_factor", "1: no other is supported")
    rope: dict[str, Any] = {"type": rope_type, "theta": parameters.number("rope_theta")}
    for key in (*ROPE_REQUIRED_KEYS[rope_type], *ROPE_OPTIONAL_KEYS.get(rope_type, ())):
        value = parameters.values.get(key)
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


def _special_ids(config: Any, raw: JsonObject, directory: Path) -> dict[str, Any]:
    """End, padding and start ids: generation_config.json's where it has them, as in transformers' generate."""
    generation = JsonObject.load_optional(directory / "generation_config.json")

    def ids(key: str, several: bool = False) -> list[int]:
        given = [_token_ids(fields, key, several) for fields in (generation, raw) if key in fields]
        if given:
            return given[0]
        default = None if key in raw.values else getattr(config, key)  # the family's; null is "none"
        return [] if default is None else [default]

    end_ids, bos_ids = ids("eos_token_id", several=True), ids("bos_token_id")
    # The padding token may be one that was added without a row of the embedding: nothing ever computes with it
    pad_ids = [token_id for token_id in ids("pad_token_id") if token_id < config.vocab_size]
    return {
        "end_ids": list(dict.fromkeys(end_ids)),
        "pad_id": (pad_ids + end_ids + [0])[0],
        "bos_id": bos_ids[0] if bos_ids else None,
    }


def _token_ids(fields: Fields, key: str, several: bool) -> list[int]:
    """One id, or also a list where there may be `several`; some configurations say -1 for "none"."""
    is_list = several and isinstance(fields.values[key], list)
    found = fields.integers(key, minimum=-1) if is_list else [fields.integer(key, minimum=-1)]
    return [token_id for token_id in found if token_id >= 0]
