"""How LLM runs an engine, in vLLM's words where it has some."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inflight.errors import InflightError
from inflight.llm.argument_types import require_flag, require_integer, require_integers

POLICIES = ("guaranteed_no_evict", "max_utilization", "static_batch")


@dataclass(frozen=True)
class ServingOptions:
    """What may differ between two uses of one engine.

    num_threads: 0 is the CPUs that this process may use. max_queue_size: sequences that may wait to start; 0 is
    any number. max_words, max_words_length: of the stop strings of a request, and of its bad words, how many there may
    be, and of how many bytes or tokens together; None is the batch manager's default.
    enable_prefix_caching: prompts that begin alike share the KV-cache blocks of what is alike.
    enable_chunked_prefill: a prompt that is longer than a step is computed over several.
    scheduler_policy: "guaranteed_no_evict" starts a sequence when its whole length fits into the KV cache,
    "max_utilization" when its next tokens do, and pauses others when the cache is full; "static_batch" starts a batch
    when the one before it has ended. max_tokens_in_kv_cache: None is the engine's kv_cache_bytes.
    kv_cache_host_memory_bytes: host memory for blocks that prefix caching would otherwise forget.
    max_attention_windows: in tokens, by layer, repeated over the layers; empty is the model's own. sink_tokens: at the
    start of a sequence, seen by every token in spite of windows.
    speculative_config: guesses the next tokens, to be checked together; what is generated does not change.
    {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 3} takes what followed the last
    prompt_lookup_max or fewer tokens where they occurred before; {"method": "draft_model", "model": path,
    "num_speculative_tokens": 4} what a smaller model of the same vocabulary generates: path as for LLM.
    """

    num_threads: int = 0
    max_queue_size: int = 0
    max_words: int | None = None
    max_words_length: int | None = None
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True
    scheduler_policy: str = "guaranteed_no_evict"
    max_tokens_in_kv_cache: int | None = None
    kv_cache_host_memory_bytes: int = 0
    max_attention_windows: Sequence[int] = ()
    sink_tokens: int = 0
    speculative_config: Mapping[str, Any] | None = None

    def __post_init__(self):
        for name in ("num_threads", "max_queue_size", "kv_cache_host_memory_bytes", "sink_tokens"):
            require_integer(name, getattr(self, name))
        for name in ("enable_prefix_caching", "enable_chunked_prefill"):
            require_flag(name, getattr(self, name))
        for name in ("max_tokens_in_kv_cache", "max_words", "max_words_length"):
            require_integer(name, getattr(self, name), optional=True)
        require_integers("max_attention_windows", self.max_attention_windows)
        if self.scheduler_policy not in POLICIES:
            raise InflightError(
                f"scheduler_policy is {self.scheduler_policy!r}; it must be one of {', '.join(POLICIES)}"
            )
        self._speculation()

    @property
    def draft_model(self) -> Path | None:
        """The model that drafts."""
        config = self.speculative_config
        return Path(config["model"]) if config is not None and config["method"] == "draft_model" else None

    def native_options(self, tokenizer_dir: Path, draft_engine_dir: Path | None) -> dict:
        """The keyword arguments of inflight._native.BatchManager."""
        return {
            "num_threads": self.num_threads,
            "max_queue_size": self.max_queue_size,
            "enable_kv_cache_reuse": self.enable_prefix_caching,
            "enable_chunked_context": self.enable_chunked_prefill,
            "scheduler_policy": self.scheduler_policy,
            "max_tokens_in_kv_cache": self.max_tokens_in_kv_cache,
            "kv_cache_host_bytes": self.kv_cache_host_memory_bytes,
            "max_attention_windows": list(self.max_attention_windows),
            "sink_tokens": self.sink_tokens,
            "tokenizer_dir": tokenizer_dir,
            "draft_engine_dir": draft_engine_dir,
            **{name: value for name in ("max_words", "max_words_length") if (value := getattr(self, name)) is not None},
            **self._speculation(),
        }

    def _speculation(self) -> dict:
        """Those of the native options that speculative_config gives."""
        if self.speculative_config is None:
            return {}
        if not isinstance(self.speculative_config, Mapping):
            raise InflightError(f"speculative_config is {self.speculative_config!r}; it must be a dict")
        config = dict(self.speculative_config)
        method = config.pop("method", None)
        num_tokens = config.pop("num_speculative_tokens", None)
        _require_positive("num_speculative_tokens", num_tokens)
        if method == "ngram":
            longest, shortest = config.pop("prompt_lookup_max", 3), config.pop("prompt_lookup_min", 1)
            _require_positive("prompt_lookup_max", longest)
            if shortest != 1:
                raise InflightError(
                    f"prompt_lookup_min of speculative_config is {shortest!r}; it must be 1: shorter ones are tried too"
                )
            native = {"prompt_lookup_max_draft_tokens": num_tokens, "prompt_lookup_max_ngram": longest}
            known = "prompt_lookup_max and prompt_lookup_min"
        elif method == "draft_model":
            model = config.pop("model", None)
            if not isinstance(model, (str, os.PathLike)):
                raise InflightError(f"model of speculative_config is {model!r}; it must be a str or a Path")
            native, known = {"num_draft_tokens": num_tokens}, "model"
        else:
            raise InflightError(f'method of speculative_config is {method!r}; it must be "ngram" or "draft_model"')
        if config:
            raise InflightError(
                f"speculative_config has {', '.join(map(repr, config))}; for {method} there are method, "
                f"num_speculative_tokens, {known}"
            )
        return native


def _require_positive(name: str, value: Any) -> None:
    require_integer(f"{name} of speculative_config", value)
    if not 1 <= value < 2**31:
        raise InflightError(f"{name} of speculative_config is {value}; it must be at least 1")
