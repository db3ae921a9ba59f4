"""Offline inference and async streams: `LLM`, and what its requests and answers are made of."""

from inflight.llm.beam_search import BeamSearchOutput, BeamSearchParams, BeamSearchSequence
from inflight.llm.generation import CompletionOutput, RequestOutput
from inflight.llm.llm import LLM
from inflight.llm.logprobs import Logprob
from inflight.llm.sampling_params import SamplingParams
from inflight.llm.structured_outputs import GuidedDecodingParams, StructuredOutputsParams

__all__ = [
    "LLM",
    "BeamSearchOutput",
    "BeamSearchParams",
    "BeamSearchSequence",
    "CompletionOutput",
    "GuidedDecodingParams",
    "Logprob",
    "RequestOutput",
    "SamplingParams",
    "StructuredOutputsParams",
]
