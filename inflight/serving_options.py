"""How LLM runs an engine, in vLLM's words where it has some."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inflight.argument_types import require_flag, require_integer, require_integers
from inflight.errors import InflightError

POLICIES = ("guaranteed_no_evict", "max_utilization", "static_batch")


@dataclass(frozen=True)
class ServingOptions:
    """What may differ between two uses of one engine.

    num_threads: 0 is the CPUs that this process may use. max_queue_size: requests that may wait to be scheduled; 0 is
    any number. enable_prefix_caching: prompts that begin alike share the KV-cache blocks of what is alike.
    enable_chunked_prefill: a prompt that is longer than a step is computed over several.
    scheduler_policy: "guaranteed_no_evict" starts a sequence when its whole length fits into the KV cache,
    "max_utilization" when its next tokens do, and pauses others when the cache is full; "static_batch" starts a batch
    when the one before it has ended. max_tokens_in_kv_cache: None is the engine's kv_cache_bytes.
    kv_cache_host_memory_bytes: host memory for blocks that prefix caching would otherwise forget.
    max_attention_windows: in tokens, by layer, repeated over the layers; empty is the model's own. sink_tokens: at the
    start of a sequence, seen by every token in spite of windows.
    speculative_config: {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 3} guesses the next tokens
    where the last prompt_lookup_max or fewer tokens have occurred before; what is generated does not change.
    """

    num_threads: int = 0
    max_queue_size: int = 0
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
        require_integer("max_tokens_in_kv_cache", self.max_tokens_in_kv_cache, optional=True)
        require_integers("max_attention_windows", self.max_attention_windows)
        if self.scheduler_policy not in POLICIES:
            raise InflightError(
                f"scheduler_policy is {self.scheduler_policy!r}; it must be one of {', '.join(POLICIES)}"
            )
        self._prompt_lookup()

    def native_options(self, tokenizer_dir: Path) -> dict:
        """The keyword arguments of inflight._native.BatchManager."""
        max_draft_tokens, max_ngram = self._prompt_lookup()
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
            "prompt_lookup_max_draft_tokens": max_draft_tokens,
            "prompt_lookup_max_ngram": max_ngram,
            "tokenizer_dir": tokenizer_dir,
        }

    def _prompt_lookup(self) -> tuple[int, int]:
        """The most draft tokens (0: no drafts) and the longest n-gram."""
        if self.speculative_config is None:
            return 0, 3
        if not isinstance(self.speculative_config, Mapping):
            raise InflightError(f"speculative_config is {self.speculative_config!r}; it must be a dict")
        config = dict(self.speculative_config)
        method = config.pop("method", None)
        if method != "ngram":
            raise InflightError(f'method of speculative_config is {method!r}; there is "ngram"')
        num_tokens = config.pop("num_speculative_tokens", None)
        longest = config.pop("prompt_lookup_max", 3)
        shortest = config.pop("prompt_lookup_min", 1)
        if config:
            raise InflightError(
                f"speculative_config has {', '.join(map(repr, config))}; there are method, num_speculative_tokens, "
                "prompt_lookup_max and prompt_lookup_min"
            )
        for name, value in {"num_speculative_tokens": num_tokens, "prompt_lookup_max": longest}.items():
            require_integer(f"{name} of speculative_config", value)
            if not 1 <= value < 2**31:
                raise InflightError(f"{name} of speculative_config is {value}; it must be at least 1")
        if shortest != 1:
            raise InflightError(
                f"prompt_lookup_min of speculative_config is {shortest!r}; it must be 1: shorter ones are tried in turn"
            )
        return num_tokens, longest
