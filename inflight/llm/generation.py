"""What a request has generated so far: token ids, text, and why it ended."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from inflight.llm.logprobs import Logprobs, prompt_logprobs, token_logprobs
from inflight.llm.sampling_params import SamplingParams
from inflight.text import TextStream, Tokenizer, cut

FINISH_REASONS = {"end_id": "stop", "stop_words": "stop", "length": "length", "cancelled": "abort"}


@dataclass
class CompletionOutput:
    """One generated sequence, or, in a stream, what it has gained.

    index: which of SamplingParams.n. token_ids: without the end id that ended it. logprobs: of each of token_ids and of
    the most likely ones in its place, when asked for. cumulative_logprob: over all tokens generated up to here.
    finish_reason: None while it runs, "stop" (an end id or a stop string), "length" or "abort". stop_reason: the stop
    string. generation_logits: float32 [len(token_ids), vocab_size], when asked for.
    """

    index: int = 0
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[Logprobs] | None = None
    cumulative_logprob: float | None = None
    finish_reason: str | None = None
    stop_reason: str | None = None
    generation_logits: np.ndarray | None = field(default=None, repr=False, compare=False)


@dataclass
class RequestOutput:
    """A prompt and what came of it. prompt: None when it was token ids. context_logits: float32
    [len(prompt_token_ids), vocab_size], when asked for. prompt_logprobs: of each of prompt_token_ids but the first, for
    which there is None, when asked for."""

    request_id: int
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool
    context_logits: np.ndarray | None = field(default=None, repr=False, compare=False)
    prompt_logprobs: list[Logprobs | None] | None = None


class Generation:
    """Turns the responses of one request into pieces of its sequences."""

    def __init__(self, tokenizer: Tokenizer, sampling: SamplingParams, prompt_token_ids: Sequence[int]):
        self._tokenizer = tokenizer if sampling.detokenize else None
        self._sampling = sampling
        self._prompt_token_ids = prompt_token_ids
        self._sequences = [_Sequence(index, tokenizer, sampling) for index in range(sampling.n)]
        self.context_logits: np.ndarray | None = None
        self.prompt_logprobs: list[Logprobs | None] | None = None

    @property
    def finished(self) -> bool:
        return all(sequence.finished for sequence in self._sequences)

    def push(self, response) -> CompletionOutput:
        """What `response` (inflight._native.Response) adds to its sequence."""
        if response.context_logits is not None:
            self._take_context_logits(response.context_logits)
        return self._sequences[response.sequence_index].push(response)

    def _take_context_logits(self, logits: np.ndarray) -> None:
        """Each of a prompt's sequences brings them."""
        count = self._sampling.prompt_logprobs
        if count is not None and self.prompt_logprobs is None:
            self.prompt_logprobs = prompt_logprobs(logits, self._prompt_token_ids, count, self._tokenizer)
        if self._sampling.return_context_logits:
            self.context_logits = logits


class GenerationCollector:
    """The whole sequences of one request, from its responses."""

    def __init__(self, tokenizer: Tokenizer, sampling: SamplingParams, prompt_token_ids: Sequence[int]):
        self._generation = Generation(tokenizer, sampling, prompt_token_ids)
        self._pieces: list[list[CompletionOutput]] = [[] for _ in range(sampling.n)]

    @property
    def finished(self) -> bool:
        return self._generation.finished

    @property
    def context_logits(self) -> np.ndarray | None:
        return self._generation.context_logits

    @property
    def prompt_logprobs(self) -> list[Logprobs | None] | None:
        return self._generation.prompt_logprobs

    def push(self, response) -> None:
        """Takes one of the request's responses (inflight._native.Response)."""
        piece = self._generation.push(response)
        self._pieces[piece.index].append(piece)

    def outputs(self) -> list[CompletionOutput]:
        """Of a request that is finished, in the order of their indices."""
        return [_join(pieces) for pieces in self._pieces]


class _Sequence:
    def __init__(self, index: int, tokenizer: Tokenizer, sampling: SamplingParams):
        self._index = index
        self._sampling = sampling
        self._tokenizer = tokenizer if sampling.detokenize else None
        self._text = TextStream(tokenizer.detokenizer(sampling.skip_special_tokens))
        self.finished = False

    def push(self, response) -> CompletionOutput:
        piece = CompletionOutput(self._index, token_ids=response.tokens, generation_logits=response.generation_logits)
        if self._sampling.detokenize:
            piece.text = cut(self._text.push(response.tokens, response.is_sequence_final), response.num_cut_bytes)
        if self._sampling.logprobs is not None:
            chosen = zip(response.tokens, response.log_probs, response.ranks, strict=True)
            top = response.top_log_probs
            piece.logprobs = [token_logprobs(each, top[at], self._tokenizer) for at, each in enumerate(chosen)]
            piece.cumulative_logprob = response.cum_log_prob
        if response.is_sequence_final:
            self.finished = True
            piece.finish_reason = FINISH_REASONS[response.finish_reason]
            if response.stop_text >= 0:
                piece.stop_reason = self._sampling.stop_strings[response.stop_text]
        return piece


def _join(pieces: Sequence[CompletionOutput]) -> CompletionOutput:
    """The whole of a sequence from the pieces of its stream, in order."""
    last = pieces[-1]
    logits = [piece.generation_logits for piece in pieces if piece.generation_logits is not None]
    return CompletionOutput(
        index=last.index,
        text="".join(piece.text for piece in pieces),
        token_ids=[token for piece in pieces for token in piece.token_ids],
        logprobs=None if last.logprobs is None else [value for piece in pieces for value in piece.logprobs or ()],
        cumulative_logprob=last.cumulative_logprob,
        finish_reason=last.finish_reason,
        stop_reason=last.stop_reason,
        generation_logits=np.concatenate(logits) if logits else None,
    )
