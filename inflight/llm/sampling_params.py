"""How a prompt is continued, in the names that vLLM's users know."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from inflight.errors import InflightError
from inflight.llm.argument_types import (
    is_integer,
    require_flag,
    require_integer,
    require_integers,
    require_number,
    require_texts,
)
from inflight.llm.option_names import known_options_only
from inflight.llm.structured_outputs import StructuredOutputsParams
from inflight.text import Tokenizer
from inflight.text.spellings import spellings

_MAX_FLOAT32 = float(np.finfo(np.float32).max)


MAX_LOGPROBS = 20  # kMaxTopLogProbs of backend/engine/sampling_config.h

_ADVICE = {
    "best_of": "n sequences are returned, unranked",
    "beam_width": "it is an option of BeamSearchParams, for LLM.beam_search",
    "do_sample": "temperature=0 is greedy decoding",
    "early_stopping": "it is an option of BeamSearchParams, for LLM.beam_search",
    "extra_args": "there are none",
    "flat_logprobs": "logprobs are a dict for each token",
    "length_penalty": "it is an option of BeamSearchParams, for LLM.beam_search",
    "logits_processors": "logit_bias, allowed_token_ids, bad_words and structured_outputs shape what is generated",
    "max_new_tokens": "say max_tokens",
    "min_length": "say min_tokens",
    "num_beams": "LLM.beam_search takes BeamSearchParams(beam_width=…)",
    "num_return_sequences": "say n",
    "output_kind": "LLM.generate returns whole texts, LLM.stream pieces",
    "random_seed": "say seed",
    "spaces_between_special_tokens": "the tokenizer's own decoder says what stands between tokens",
    "stop_sequences": "say stop",
    "stop_words": "say stop",
    "truncate_prompt_tokens": "cut the prompt's token ids before they are sent",
    "use_beam_search": "call LLM.beam_search",
}


@known_options_only(_ADVICE)
@dataclass(frozen=True)
class SamplingParams:
    """The order of operations is that of backend/engine/sampling_config.h; ranges are checked when a request starts.

    n: sequences for each prompt, with seeds seed, seed + 1 … temperature: 0 is greedy decoding. top_k: 0 or -1 is all
    tokens. min_p: drops tokens that are less likely than this share of the most likely one. max_tokens: None is as many
    as the engine holds. min_tokens: no end id and no stop string before. seed: None is another one for every request.
    stop: strings that end the text; include_stop_str_in_output: they are part of it. stop_token_ids: end ids beside the
    model's own. bad_words: strings that are never generated, at the start of a word or not. logit_bias: of token ids,
    added to their logits. allowed_token_ids: no others are generated. logprobs: returns the log-probability of each
    chosen token, and of as many of the most likely ones, at most 20; prompt_logprobs: the same of the prompt's tokens,
    which are then never taken from the prefix cache. ignore_eos: the model's own end ids do not end the generation.
    detokenize: False returns token ids without text.
    structured_outputs: what the text must look like; guided_decoding is its name in older programs.
    return_context_logits, return_generation_logits: the model's raw logits at every token of the prompt, which is then
    never taken from the prefix cache, and before every generated token: vocab_size * 4 bytes a token.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int | None = 16
    min_tokens: int = 0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: str | Sequence[str] = ()
    include_stop_str_in_output: bool = False
    stop_token_ids: Sequence[int] = ()
    bad_words: Sequence[str] = ()
    logit_bias: Mapping[int, float] | None = None
    allowed_token_ids: Sequence[int] | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    ignore_eos: bool = False
    detokenize: bool = True
    skip_special_tokens: bool = True
    structured_outputs: StructuredOutputsParams | None = None
    guided_decoding: StructuredOutputsParams | None = None
    return_context_logits: bool = False
    return_generation_logits: bool = False

    def __post_init__(self):
        self._check_types()
        if not 1 <= self.n < 2**31:
            raise InflightError(f"n is {self.n}; it must be at least 1")
        if not 0 < self.top_p <= 1:
            raise InflightError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if not 0 <= self.min_p <= 1:
            raise InflightError(f"min_p is {self.min_p}; it must be in 0 to 1")
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
        for name in ("logprobs", "prompt_logprobs"):
            count = getattr(self, name)
            if count is not None and not 0 <= count <= MAX_LOGPROBS:
                raise InflightError(f"{name} is {count}; it must be None or in 0 to {MAX_LOGPROBS}")
        if self.stop_strings and not self.detokenize:
            raise InflightError("stop needs the text: leave out detokenize=False, or use stop_token_ids")
        if "" in self.stop_strings or "" in self.bad_words:
            raise InflightError("stop and bad_words must not hold an empty string; leave it out")
        if self.structured_outputs is not None and self.guided_decoding is not None:
            raise InflightError(
                "structured_outputs and guided_decoding are two names of one option; give the first alone"
            )

    def _check_types(self) -> None:
        for name in ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"):
            require_number(name, getattr(self, name))
        for name in ("n", "top_k", "min_tokens"):
            require_integer(name, getattr(self, name))
        for name in ("max_tokens", "seed", "logprobs", "prompt_logprobs"):
            require_integer(name, getattr(self, name), optional=True)
        for name in (
            "include_stop_str_in_output",
            "ignore_eos",
            "detokenize",
            "skip_special_tokens",
            "return_context_logits",
            "return_generation_logits",
        ):
            require_flag(name, getattr(self, name))
        require_integers("stop_token_ids", self.stop_token_ids)
        if self.allowed_token_ids is not None:
            require_integers("allowed_token_ids", self.allowed_token_ids)
            if len(self.allowed_token_ids) == 0:
                raise InflightError("allowed_token_ids is empty; leave it out to allow all tokens")
        require_texts("stop", [self.stop] if isinstance(self.stop, str) else self.stop)
        require_texts("bad_words", self.bad_words)
        if self.logit_bias is not None:
            self._check_logit_bias()
        for name in ("structured_outputs", "guided_decoding"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, StructuredOutputsParams):
                raise InflightError(f"{name} is {value!r}; it must be StructuredOutputsParams")

    def _check_logit_bias(self) -> None:
        if not isinstance(self.logit_bias, Mapping):
            raise InflightError(f"logit_bias is {self.logit_bias!r}; it must be a dict of token ids to numbers")
        for token, bias in self.logit_bias.items():
            if not is_integer(token):
                raise InflightError(f"logit_bias has the key {token!r}; it must be a token id, an integer")
            require_number(f"logit_bias of token {token}", bias)
            if not abs(bias) <= _MAX_FLOAT32:
                raise InflightError(f"logit_bias of token {token} is {bias}; it must be finite in float32")

    @property
    def stop_strings(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def native_options(self, tokenizer: Tokenizer, info) -> dict:
        """The keyword arguments of inflight._native.BatchManager.submit that say how to sample.

        info: inflight._native.EngineInfo.
        """
        end_ids = [*self.stop_token_ids] if self.ignore_eos else [*info.end_ids, *self.stop_token_ids]
        structure = self.structured_outputs or self.guided_decoding
        return {
            "num_return_sequences": self.n,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": max(self.top_k, 0),
            "min_p": self.min_p,
            "random_seed": secrets.randbits(64) if self.seed is None else self.seed,
            "repetition_penalty": self.repetition_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "min_length": self.min_tokens,
            "end_ids": end_ids or [-1],
            "stop_texts": list(self.stop_strings),
            "include_stop_str_in_output": self.include_stop_str_in_output,
            "skip_special_tokens": self.skip_special_tokens,
            "stop_min_tokens": self.min_tokens,
            "bad_words": [ids for word in self.bad_words for ids in spellings(word, tokenizer)],
            "embedding_bias": self._embedding_bias(info.vocab_size),
            "return_log_probs": self.logprobs is not None,
            "num_top_log_probs": self.logprobs,
            "guided_decoding": None if structure is None else structure.native_guide,
            "return_context_logits": self.return_context_logits or self.prompt_logprobs is not None,
            "return_generation_logits": self.return_generation_logits,
        }

    def _embedding_bias(self, vocab_size: int) -> np.ndarray | None:
        if not self.logit_bias and self.allowed_token_ids is None:
            return None
        bias = np.zeros(vocab_size, np.float32)
        for token, value in (self.logit_bias or {}).items():
            _require_token("logit_bias", token, vocab_size)
            bias[token] = value
        if self.allowed_token_ids is not None:
            for token in self.allowed_token_ids:
                _require_token("allowed_token_ids", token, vocab_size)
            allowed = np.zeros(vocab_size, bool)
            allowed[list(self.allowed_token_ids)] = True
            bias[~allowed] = -np.inf
        return bias


def _require_token(name: str, token: int, vocab_size: int) -> None:
    if not 0 <= token < vocab_size:
        raise InflightError(f"{name} holds token {token}; token ids of this model are 0 to {vocab_size - 1}")
