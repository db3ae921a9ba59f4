"""What a request has generated so far: token ids, text, and why it ended."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from inflight.logprobs import Logprobs, prompt_logprobs, token_logprobs
from inflight.sampling_params import SamplingParams
from inflight.stop_strings import StopStringFilter
from inflight.text import TextStream, Tokenizer

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
    """Turns the responses of one request into pieces of its sequences.

    A stop string ends its own sequence; the batch manager, which knows nothing of it, goes on with that one too until
    the request is cancelled, and it can be as soon as all are `finished`.
    """

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

    def push(self, response) -> CompletionOutput | None:
        """What `response` (inflight._native.Response) adds to its sequence; None if that one is finished already."""
        if response.context_logits is not None:
            self._take_context_logits(response.context_logits)
        sequence = self._sequences[response.sequence_index]
        return None if sequence.finished else sequence.push(response)

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
        if piece is not None:
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
        self._stop_filter = StopStringFilter(sampling.stop_strings)
        self._num_tokens = 0
        self._cumulative_logprob = 0.0
        self.finished = False

    def push(self, response) -> CompletionOutput:
        piece = CompletionOutput(self._index, logprobs=None if self._sampling.logprobs is None else [])
        # Each is made anew when it is asked for.
        log_probs, ranks, top_log_probs = response.log_probs, response.ranks, response.top_log_probs
        # One token at a time: where a stop string ends must not depend on how tokens are joined in responses.
        for position, token in enumerate(response.tokens):
            piece.token_ids.append(token)
            if piece.logprobs is not None:
                chosen = (token, log_probs[position], ranks[position])
                piece.logprobs.append(token_logprobs(chosen, top_log_probs[position], self._tokenizer))
                self._cumulative_logprob += log_probs[position]
            self._num_tokens += 1
            if self._sampling.detokenize:
                piece.text += self._filter(self._text.push([token]))
            if self._stop_filter.matched is not None:
                break
        if response.is_sequence_final and self._sampling.detokenize and self._stop_filter.matched is None:
            piece.text += self._filter(self._text.push([], finished=True), finished=True)
        if piece.logprobs is not None:
            piece.cumulative_logprob = self._cumulative_logprob
        if response.generation_logits is not None:
            piece.generation_logits = response.generation_logits[: len(piece.token_ids)]
        if self._stop_filter.matched is not None:
            piece.finish_reason, piece.stop_reason = "stop", self._stop_filter.matched
        elif response.is_sequence_final:
            piece.finish_reason = FINISH_REASONS[response.finish_reason]
        self.finished = piece.finish_reason is not None
        return piece

    def _filter(self, text: str, finished: bool = False) -> str:
        if self._num_tokens <= self._sampling.min_tokens:
            return self._stop_filter.pass_on(text)
        return self._stop_filter.push(text, finished)


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
