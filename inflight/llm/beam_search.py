"""Beam search, in the names that vLLM's users know."""

from collections.abc import Sequence
from dataclasses import dataclass

from inflight.errors import InflightError
from inflight.llm.argument_types import require_flag, require_integer, require_number
from inflight.llm.generation import FINISH_REASONS
from inflight.llm.option_names import known_options_only
from inflight.text import Tokenizer

_ADVICE = {
    "n": "as many sequences are returned as beam_width says",
    "num_beams": "say beam_width",
    "temperature": "a beam search takes the most likely tokens: there is no temperature",
    "max_new_tokens": "say max_tokens",
}


@known_options_only(_ADVICE)
@dataclass(frozen=True)
class BeamSearchParams:
    """The search is that of transformers.

    beam_width: beams that are followed, and returned; at most the engine's max_beam_width. max_tokens: of a beam.
    ignore_eos: the model's own end ids do not end a beam. length_penalty: a beam's score is its cumulative
    log-probability over (generated tokens)^length_penalty. early_stopping: True stops as soon as beam_width beams are
    finished, False when a better one is unlikely, "never" when there can be none. diversity_rate: what the second best
    token of a beam loses, the third twice, and so on.
    """

    beam_width: int
    max_tokens: int
    ignore_eos: bool = False
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    diversity_rate: float = 0.0

    def __post_init__(self):
        for name in ("beam_width", "max_tokens"):
            value = getattr(self, name)
            require_integer(name, value)
            if not 1 <= value < 2**31:
                raise InflightError(f"{name} is {value}; it must be at least 1")
        require_flag("ignore_eos", self.ignore_eos)
        for name in ("length_penalty", "diversity_rate"):
            require_number(name, getattr(self, name))
        if not isinstance(self.early_stopping, bool) and self.early_stopping != "never":
            raise InflightError(f"early_stopping is {self.early_stopping!r}; it must be True, False or 'never'")

    def native_options(self, tokenizer: Tokenizer, info) -> dict:
        """The keyword arguments of inflight._native.BatchManager.submit. info: inflight._native.EngineInfo."""
        return {
            "num_return_sequences": self.beam_width,
            "beam_width": self.beam_width,
            "length_penalty": self.length_penalty,
            "early_stopping": self.early_stopping,
            "beam_search_diversity_rate": self.diversity_rate,
            "end_ids": [-1] if self.ignore_eos else list(info.end_ids),
            "return_log_probs": True,
        }


@dataclass
class BeamSearchSequence:
    """tokens, text: with the prompt. logprobs: of the generated tokens. cum_logprob: over the end id as well.

    finish_reason: "stop" (an end id), "length" or "abort".
    """

    tokens: list[int]
    text: str
    logprobs: list[float]
    cum_logprob: float
    finish_reason: str


@dataclass
class BeamSearchOutput:
    sequences: list[BeamSearchSequence]  # beam_width of them, best first


class BeamSearchCollector:
    """The output of one beam search, from its response."""

    def __init__(self, tokenizer: Tokenizer, input_ids: Sequence[int]):
        self._tokenizer = tokenizer
        self._input_ids = list(input_ids)
        self.output: BeamSearchOutput | None = None

    @property
    def finished(self) -> bool:
        return self.output is not None

    def push(self, response) -> None:
        """Takes one of the request's responses (inflight._native.Response); the last one has the beams."""
        if response.is_final:
            self.output = BeamSearchOutput([self._sequence(beam) for beam in response.beams])

    def _sequence(self, beam) -> BeamSearchSequence:
        tokens = self._input_ids + beam.tokens
        return BeamSearchSequence(
            tokens=tokens,
            text=self._tokenizer.decode(tokens),
            logprobs=beam.log_probs,
            cum_logprob=beam.cum_log_prob,
            finish_reason=FINISH_REASONS[beam.finish_reason],
        )
