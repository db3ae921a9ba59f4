"""How a prompt is continued, in the names that vLLM's users know."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from inflight.argument_types import require_flag, require_integer, require_integers, require_number, require_texts
from inflight.errors import InflightError
from inflight.text import Tokenizer


@dataclass(frozen=True)
class SamplingParams:
    """The order of operations is that of backend/engine/sampling_config.h; ranges are checked when a request starts.

    temperature: 0 is greedy decoding. top_k: 0 or -1 is all tokens. max_tokens: None is as many as the engine holds.
    min_tokens: no end id and no stop string before. seed: None is another one for every request. stop: strings that
    end the text and are not part of it. stop_token_ids: end ids beside the model's own. bad_words: strings that are
    never generated, at the start of a word or not. logprobs: 0 returns the log-probability of each chosen token.
    ignore_eos: the model's own end ids do not end the generation.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int | None = 16
    min_tokens: int = 0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: str | Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    bad_words: Sequence[str] = ()
    logprobs: int | None = None
    ignore_eos: bool = False
    skip_special_tokens: bool = True

    def __post_init__(self):
        self._check_types()
        if not 0 < self.top_p <= 1:
            raise InflightError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if self.top_k < -1:
            raise InflightError(f"top_k is {self.top_k}; it must be positive, or 0 or -1 for all tokens")
        if self.max_tokens is not None and not 1 <= self.max_tokens < 2**31:
            raise InflightError(f"max_tokens is {self.max_tokens}; it must be None or in 1 to 2^31 - 1")
        if not 0 <= self.min_tokens < 2**31:
            raise InflightError(f"min_tokens is {self.min_tokens}; it must be in 0 to 2^31 - 1")
        for token in self.stop_token_ids:
            if not 0 <= token < 2**31:
                raise InflightError(f"stop_token_ids holds {token}; token ids are 0 to 2^31 - 1")
        if self.seed is not None and not 0 <= self.seed < 2**64:
            raise InflightError(f"seed is {self.seed}; it must be None or in 0 to 2^64 - 1")
        if self.logprobs not in (None, 0):
            raise InflightError(f"logprobs is {self.logprobs}; there is 0, the chosen token's alone, and None")
        if "" in self.stop_strings or "" in self.bad_words:
            raise InflightError("stop and bad_words must not hold an empty string; leave it out")

    def _check_types(self) -> None:
        for name in ("temperature", "top_p", "repetition_penalty", "presence_penalty", "frequency_penalty"):
            require_number(name, getattr(self, name))
        for name in ("top_k", "min_tokens"):
            require_integer(name, getattr(self, name))
        for name in ("max_tokens", "seed", "logprobs"):
            require_integer(name, getattr(self, name), optional=True)
        for name in ("ignore_eos", "skip_special_tokens"):
            require_flag(name, getattr(self, name))
        require_integers("stop_token_ids", self.stop_token_ids)
        require_texts("stop", [self.stop] if isinstance(self.stop, str) else self.stop)
        require_texts("bad_words", self.bad_words)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def native_options(self, tokenizer: Tokenizer, model_end_ids: Sequence[int]) -> dict:
        """The keyword arguments of inflight._native.BatchManager.submit that say how to sample."""
        end_ids = [*self.stop_token_ids] if self.ignore_eos else [*model_end_ids, *self.stop_token_ids]
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": max(self.top_k, 0),
            "random_seed": secrets.randbits(64) if self.seed is None else self.seed,
            "repetition_penalty": self.repetition_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "min_length": self.min_tokens,
            "end_ids": end_ids or [-1],
            "bad_words": [ids for word in self.bad_words for ids in _spellings(word, tokenizer)],
            "return_log_probs": self.logprobs is not None,
        }


def _spellings(word: str, tokenizer: Tokenizer) -> list[list[int]]:
    """The word inside a word and at the start of one: most tokenizers have other tokens after a space."""
    spellings = (word, " " + word.lstrip())
    encoded = [tokenizer.encode(spelling, add_special_tokens=False) for spelling in spellings]
    return [ids for index, ids in enumerate(encoded) if ids and ids not in encoded[:index]]
