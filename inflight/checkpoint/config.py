"""The checkpoint's config.json: architecture, numerics and special token ids of a model."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inflight.errors import InflightError
from inflight.json_object import JsonObject

FORMAT = "inflight-checkpoint"
VERSION = 1
MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
WEIGHT_DTYPES = ("float32", "bfloat16", "float16", "int8", "int4")
MAX_LAYERS = 10_000  # far beyond any model; a damaged file must not cost a list of 2^40 entries

# Keys of `rope` beside type and theta, as Hugging Face spells them: those a type needs, and those it may have. The
# same as in backend/engine/model_config.cc, which has the defaults.
ROPE_REQUIRED_KEYS = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": (),
}
ROPE_OPTIONAL_KEYS = {
    "llama3": ("original_max_position_embeddings",),
    "yarn": (
        "factor",
        "original_max_position_embeddings",
        "beta_fast",
        "beta_slow",
        "attention_factor",
        "mscale",
        "mscale_all_dim",
        "truncate",
    ),
}


@dataclass
class ModelConfig:
    """What `docs/architecture.md` lays down under "Checkpoint"; attributes are the JSON fields."""

    model_type: str
    dtype: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_size: int
    intermediate_size: int
    max_position_embeddings: int
    norm_epsilon: float
    tie_word_embeddings: bool
    qkv_bias: bool
    dense_bias: bool
    mlp_bias: bool
    qk_norm: bool
    rope: dict[str, Any]
    layer_windows: list[int]
    end_ids: list[int]
    pad_id: int
    bos_id: int | None
    hidden_act: str = "silu"
    mapping: dict[str, int] = dataclasses.field(default_factory=lambda: {"world_size": 1, "tp_size": 1, "pp_size": 1})

    @property
    def qkv_size(self) -> int:
        """Rows of the fused query, key and value matrix."""
        return (self.num_attention_heads + 2 * self.num_key_value_heads) * self.head_size

    @property
    def attention_size(self) -> int:
        """Columns of the attention output matrix."""
        return self.num_attention_heads * self.head_size

    def to_dict(self) -> dict[str, Any]:
        return {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], origin: str = "config.json") -> "ModelConfig":
        """Checks every field. Raises InflightError naming `origin` and the field."""
        fields = JsonObject(values, origin)
        fields.expect_format(FORMAT, VERSION, "inflight convert")
        layers = fields.integer("num_hidden_layers", minimum=1, maximum=MAX_LAYERS)
        mapping = fields.object("mapping")
        config = cls(
            model_type=fields.choice("model_type", MODEL_TYPES),
            dtype=fields.choice("dtype", WEIGHT_DTYPES),
            vocab_size=fields.integer("vocab_size", minimum=1),
            hidden_size=fields.integer("hidden_size", minimum=1),
            num_hidden_layers=layers,
            num_attention_heads=fields.integer("num_attention_heads", minimum=1),
            num_key_value_heads=fields.integer("num_key_value_heads", minimum=1),
            head_size=fields.integer("head_size", minimum=2),
            intermediate_size=fields.integer("intermediate_size", minimum=1),
            max_position_embeddings=fields.integer("max_position_embeddings", minimum=1),
            norm_epsilon=fields.number("norm_epsilon", below=1.0),
            tie_word_embeddings=fields.boolean("tie_word_embeddings"),
            qkv_bias=fields.boolean("qkv_bias"),
            dense_bias=fields.boolean("dense_bias"),
            mlp_bias=fields.boolean("mlp_bias"),
            qk_norm=fields.boolean("qk_norm"),
            rope=_checked_rope(fields.object("rope")),
            layer_windows=fields.integers("layer_windows", length=layers),
            end_ids=fields.integers("end_ids"),
            pad_id=fields.integer("pad_id"),
            bos_id=fields.integer("bos_id", default=None),
            hidden_act=fields.choice("hidden_act", ("silu",)),
            mapping={name: mapping.choice(name, (1,)) for name in ("world_size", "tp_size", "pp_size")},
        )
        config._check_consistency(fields)
        return config

    @classmethod
    def load(cls, directory: Path | str) -> "ModelConfig":
        """Reads and checks DIRECTORY/config.json. Raises InflightError naming the file and the field."""
        path = Path(directory) / "config.json"
        if not path.is_file():
            raise InflightError(
                f"{directory} is not a checkpoint: it has no config.json (make one with `inflight convert`)"
            )
        return cls.from_dict(JsonObject.load(path).values, str(path))

    def save(self, directory: Path | str) -> None:
        """Writes DIRECTORY/config.json."""
        (Path(directory) / "config.json").write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    def _check_consistency(self, fields: JsonObject) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            fields.fail("num_key_value_heads", f"a divisor of num_attention_heads ({self.num_attention_heads})")
        if self.head_size % 2:
            fields.fail("head_size", "an even number: rotary embeddings turn pairs")
        for name, ids in (("end_ids", self.end_ids), ("pad_id", [self.pad_id]), ("bos_id", [self.bos_id or 0])):
            if any(token >= self.vocab_size for token in ids):
                fields.fail(name, f"token ids below vocab_size ({self.vocab_size})")


def _checked_rope(rope: JsonObject) -> dict[str, Any]:
    rope_type = rope.choice("type", tuple(ROPE_REQUIRED_KEYS))
    required = ROPE_REQUIRED_KEYS[rope_type]
    optional = [key for key in ROPE_OPTIONAL_KEYS.get(rope_type, ()) if key in rope]
    for key in rope.values:
        if key not in ("type", "theta", *required, *optional):
            rope.fail(key, f"no such key for rope type {rope_type}")
    checked: dict[str, Any] = {"type": rope_type, "theta": rope.number("theta")}
    for key in (*required, *optional):
        if key == "truncate":
            checked[key] = rope.boolean(key)
        elif key == "original_max_position_embeddings":
            checked[key] = rope.integer(key, minimum=1)
        else:
            checked[key] = rope.number(key)
    if rope_type == "llama3" and checked["high_freq_factor"] <= checked["low_freq_factor"]:
        rope.fail("high_freq_factor", f"a number above low_freq_factor ({checked['low_freq_factor']:g})")
    return checked
