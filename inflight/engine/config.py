"""What a user asks `inflight build` for, and the engine's config.json."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inflight.checkpoint.config import ModelConfig
from inflight.checkpoint.weight_types import check_dtype
from inflight.errors import InflightError
from inflight.json_object import JsonObject

FORMAT = "inflight-engine"
VERSION = 1
DEVICES = ("cpu",)
KV_CACHE_DTYPES = ("float32", "bfloat16")
MIN_SEQ_LEN = 2  # a prompt of one token and one generated token


@dataclass(frozen=True)
class BuildOptions:
    """What the user chose; None leaves it to inflight.engine.plan, from the model and the machine.

    max_batch_size: sequences in one step. max_num_tokens: tokens in one step. max_seq_len: prompt and
    generated tokens of one sequence. max_beam_width: beams of one sequence; each takes the place of a sequence in
    the batch. tokens_per_block: of a KV-cache block, a power of two. kv_cache_memory: bytes. kv_cache_dtype: of
    keys and values, "auto" is bfloat16 for int8 and int4 weights. logits_memory: bytes of context and generation logits
    that requests may hold at once; 0 refuses requests that ask for them. dtype: of the weights, "auto" keeps the
    checkpoint's.
    """

    max_batch_size: int | None = None
    max_num_tokens: int | None = None
    max_seq_len: int | None = None
    max_beam_width: int | None = None
    tokens_per_block: int | None = None
    kv_cache_memory: int | None = None
    logits_memory: int | None = None
    kv_cache_dtype: str = "auto"
    dtype: str = "auto"
    device: str = "cpu"

    def check(self) -> None:
        """Raises InflightError naming the option, for what no model could be built with."""
        minimums = {
            "max_batch_size": 1,
            "max_num_tokens": 1,
            "max_seq_len": MIN_SEQ_LEN,
            "max_beam_width": 1,
            "tokens_per_block": 1,
            "kv_cache_memory": 1,
            "logits_memory": 0,
        }
        for name, minimum in minimums.items():
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < minimum):
                raise InflightError(f"{option(name)} is {value!r}; expected an integer of at least {minimum}")
        if self.tokens_per_block is not None and not is_power_of_two(self.tokens_per_block):
            raise InflightError(f"{option('tokens_per_block')} is {self.tokens_per_block}; expected a power of two")
        num_tokens, batch_size = self.max_num_tokens, self.max_batch_size
        if num_tokens is not None and batch_size is not None and num_tokens < batch_size:
            raise InflightError(
                f"{option('max_num_tokens')} is {num_tokens}; expected at least "
                f"{option('max_batch_size')} ({batch_size}): each sequence generates one token a step"
            )
        for name in ("max_batch_size", "max_num_tokens"):
            limit = getattr(self, name)
            if None not in (self.max_beam_width, limit) and self.max_beam_width > limit:
                raise InflightError(
                    f"{option('max_beam_width')} is {self.max_beam_width}; expected at most {option(name)} ({limit}): "
                    "each beam takes the place of a sequence and generates one token a step"
                )
        if self.kv_cache_dtype not in ("auto", *KV_CACHE_DTYPES):
            choices = ", ".join(("auto", *KV_CACHE_DTYPES))
            raise InflightError(f"{option('kv_cache_dtype')} is {self.kv_cache_dtype!r}; expected one of {choices}")
        if self.kv_cache_dtype == "bfloat16" and self.tokens_per_block == 1:
            raise InflightError(
                f"{option('tokens_per_block')} is 1; {option('kv_cache_dtype')} bfloat16 stores tokens in pairs: pass "
                "2 or more, or float32"
            )
        if self.device not in DEVICES:
            raise InflightError(f"{option('device')} is {self.device!r}; expected one of {', '.join(DEVICES)}")
        check_dtype(self.dtype)


@dataclass(frozen=True)
class BuildConfig:
    """The engine's limits, `build_config` of its config.json; see BuildOptions."""

    device: str
    max_batch_size: int
    max_num_tokens: int
    max_seq_len: int
    tokens_per_block: int
    kv_cache_bytes: int
    logits_bytes: int
    kv_cache_dtype: str = "float32"
    max_beam_width: int = 1

    @classmethod
    def from_fields(cls, fields: JsonObject) -> "BuildConfig":
        """Checks every field. Raises InflightError naming the file and the field."""
        config = cls(
            device=fields.choice("device", DEVICES),
            max_batch_size=fields.integer("max_batch_size", minimum=1),
            max_num_tokens=fields.integer("max_num_tokens", minimum=1),
            max_seq_len=fields.integer("max_seq_len", minimum=MIN_SEQ_LEN),
            tokens_per_block=fields.integer("tokens_per_block", minimum=1),
            kv_cache_bytes=fields.integer("kv_cache_bytes", minimum=1, maximum=2**63 - 1),
            logits_bytes=fields.integer("logits_bytes", minimum=0, maximum=2**63 - 1),
            kv_cache_dtype=fields.choice("kv_cache_dtype", KV_CACHE_DTYPES),
            max_beam_width=fields.integer("max_beam_width", minimum=1),
        )
        if not is_power_of_two(config.tokens_per_block):
            fields.fail("tokens_per_block", "a power of two")
        if config.kv_cache_dtype == "bfloat16" and config.tokens_per_block == 1:
            fields.fail("tokens_per_block", "at least 2 where kv_cache_dtype is bfloat16")
        if config.max_num_tokens < config.max_batch_size:
            fields.fail("max_num_tokens", f"at least max_batch_size ({config.max_batch_size})")
        if config.max_beam_width > config.max_batch_size:
            fields.fail("max_beam_width", f"at most max_batch_size ({config.max_batch_size})")
        return config


@dataclass(frozen=True)
class EngineConfig:
    """The engine's config.json, the single source of truth for the model repository."""

    pretrained_config: ModelConfig
    build_config: BuildConfig

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "pretrained_config": self.pretrained_config.to_dict(),
            "build_config": dataclasses.asdict(self.build_config),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], origin: str = "config.json") -> "EngineConfig":
        """Checks every field. Raises InflightError naming `origin` and the field."""
        fields = JsonObject(values, origin)
        fields.expect_format(FORMAT, VERSION, "inflight build")
        pretrained = fields.object("pretrained_config")
        return cls(
            ModelConfig.from_dict(pretrained.values, pretrained.origin),
            BuildConfig.from_fields(fields.object("build_config")),
        )

    @classmethod
    def load(cls, directory: Path | str) -> "EngineConfig":
        """Reads and checks DIRECTORY/config.json. Raises InflightError naming the file and the field."""
        path = Path(directory) / "config.json"
        if not path.is_file():
            raise InflightError(f"{directory} is not an engine: it has no config.json (make one with `inflight build`)")
        return cls.from_dict(JsonObject.load(path).values, str(path))

    def save(self, directory: Path | str) -> None:
        """Writes DIRECTORY/config.json."""
        (Path(directory) / "config.json").write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")


def option(name: str) -> str:
    """max_seq_len → --max-seq-len, as messages and the command line spell it."""
    return "--" + name.replace("_", "-")


def is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0
