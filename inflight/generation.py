"""What a request has generated so far: token ids, text, and why it ended."""

from dataclasses import dataclass, field

from inflight.sampling_params import SamplingParams
from inflight.stop_strings import StopStringFilter
from inflight.text import TextStream, Tokenizer

_FINISH_REASONS = {"end_id": "stop", "stop_words": "stop", "length": "length", "cancelled": "abort"}


@dataclass
class CompletionOutput:
    """One generated sequence, or, in a stream, what it has gained.

    token_ids: without the end id that ended it. logprobs: of each of token_ids, when asked for.
    cumulative_logprob: over all tokens generated up to here. finish_reason: None while it runs, "stop" (an end id
    or a stop string), "length" or "abort". stop_reason: the stop string.
    """

    index: int = 0
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] | None = None
    cumulative_logprob: float | None = None
    finish_reason: str | None = None
    stop_reason: str | None = None


@dataclass
class RequestOutput:
    request_id: int
    prompt: str | None  # None when the prompt was token ids
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool


class Generation:
    """Turns the responses of one request into pieces of its output."""

    def __init__(self, tokenizer: Tokenizer, sampling: SamplingParams):
        self._sampling = sampling
        self._text = TextStream(tokenizer.detokenizer(sampling.skip_special_tokens))
        self._stop_filter = StopStringFilter(sampling.stop_strings)
        self._num_tokens = 0
        self._cumulative_logprob = 0.0
        self.finished = False

    def push(self, response) -> CompletionOutput:
        """What `response` (inflight._native.Response) adds. A response after a stop string was met adds nothing."""
        piece = CompletionOutput(logprobs=None if self._sampling.logprobs is None else [])
        if self.finished:
            return piece
        # One token at a time: where a stop string ends must not depend on how tokens are joined in responses.
        for position, token in enumerate(response.tokens):
            piece.token_ids.append(token)
            if piece.logprobs is not None:
                piece.logprobs.append(response.log_probs[position])
                self._cumulative_logprob += response.log_probs[position]
            self._num_tokens += 1
            piece.text += self._filter(self._text.push([token]))
            if self._stop_filter.matched is not None:
                break
        if response.is_final and self._stop_filter.matched is None:
            piece.text += self._filter(self._text.push([], finished=True), finished=True)
        if piece.logprobs is not None:
            piece.cumulative_logprob = self._cumulative_logprob
        if self._stop_filter.matched is not None:
            piece.finish_reason, piece.stop_reason = "stop", self._stop_filter.matched
        elif response.is_final:
            piece.finish_reason = _FINISH_REASONS[response.finish_reason]
        self.finished = piece.finish_reason is not None
        return piece

    def _filter(self, text: str, finished: bool = False) -> str:
        if self._num_tokens <= self._sampling.min_tokens:
            return self._stop_filter.pass_on(text)
        return self._stop_filter.push(text, finished)


def join(pieces: list[CompletionOutput]) -> CompletionOutput:
    """The whole of a sequence from the pieces of its stream, in order."""
    last = pieces[-1]
    return CompletionOutput(
        text="".join(piece.text for piece in pieces),
        token_ids=[token for piece in pieces for token in piece.token_ids],
        logprobs=None if last.logprobs is None else [value for piece in pieces for value in piece.logprobs],
        cumulative_logprob=last.cumulative_logprob,
        finish_reason=last.finish_reason,
        stop_reason=last.stop_reason,
    )
