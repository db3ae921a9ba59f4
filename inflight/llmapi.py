"""The contract of TensorRT-LLM's llmapi repository: a request's tensors, and those of its responses."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import aclosing
from typing import Any

import numpy as np

from inflight._native import near_miss
from inflight.errors import InflightError
from inflight.llm import LLM
from inflight.llm.generation import CompletionOutput
from inflight.llm.sampling_params import SamplingParams

Tensors = Mapping[str, np.ndarray]

_SAMPLING = "sampling_param_"
_DEFAULT_MAX_TOKENS = 32  # TensorRT-LLM's


def refuse_unknown_fields(parameters: Collection[str], known: Collection[str]) -> None:
    """A field of a generate request that is no input arrives as a parameter. Raises InflightError for one that is
    meant for this model, as its name says or nearly says; others are ignored, as by every model.

    known: the model's inputs.
    """
    for name in parameters:
        meant = near_miss(name, list(known))
        if meant or name.startswith((_SAMPLING, "return_")):
            hint = f"did you mean {meant}?" if meant else f"there are {', '.join(sorted(known))}"
            raise InflightError(f'unknown field or request parameter "{name}"; {hint}')


class Request:
    """One request. Raises InflightError, naming the tensor, for what cannot be served.

    inputs: those of llmapi_templates/tensorrt_llm/config.pbtxt; STRING tensors hold bytes objects.
    """

    def __init__(self, inputs: Tensors, decoupled: bool):
        self._inputs = inputs
        self._prompt = self._text("text_input")
        self._streaming = self._flag("streaming")
        if self._streaming and not decoupled:
            raise InflightError("streaming is true, but the model is not decoupled; fill decoupled_mode with true")
        self._includes_prompt = not self._streaming and not self._flag(f"{_SAMPLING}exclude_input_from_output")
        self._sampling = self._sampling_params()

    async def responses(self, llm: LLM, is_cancelled: Callable[[], bool]) -> AsyncIterator[dict[str, np.ndarray]]:
        """The output tensors of each response; of a stream, each has the text so far. Ends early when the client has
        gone."""
        whole = CompletionOutput()
        async with aclosing(llm.stream(self._prompt, self._sampling)) as stream:  # type: ignore[type-var]
            async for output in stream:
                (piece,) = output.outputs
                whole.text += piece.text
                whole.finish_reason, whole.stop_reason = piece.finish_reason, piece.stop_reason
                whole.cumulative_logprob = piece.cumulative_logprob
                if is_cancelled():
                    break
                if self._streaming:
                    yield self._tensors(whole)
        if not self._streaming:
            yield self._tensors(whole)

    def _tensors(self, output: CompletionOutput) -> dict[str, np.ndarray]:
        text = self._prompt + output.text if self._includes_prompt else output.text
        tensors = {"text_output": _strings(text)}
        for name in ("finish_reason", "stop_reason"):
            if self._flag(f"return_{name}"):
                tensors[name] = _strings(str(getattr(output, name)))
        if output.cumulative_logprob is not None:
            tensors["cumulative_logprob"] = np.array([output.cumulative_logprob], np.float32)
        return tensors

    def _sampling_params(self) -> SamplingParams:
        given = {
            name: value
            for name in ("temperature", "top_k", "top_p", "frequency_penalty", "presence_penalty", "max_tokens", "seed")
            if (value := self._scalar(_SAMPLING + name)) is not None
        }
        if (beam_width := self._scalar(f"{_SAMPLING}beam_width")) not in (None, 1):
            raise InflightError(f"{_SAMPLING}beam_width is {beam_width}; it must be 1: the ensemble has beam search")
        if not given.keys() & {"temperature", "top_k", "top_p"}:
            given["temperature"] = 0.0
        stop = [
            _decoded("sampling_param_stop", text) for text in self._inputs.get(f"{_SAMPLING}stop", np.array([])).flat
        ]
        return SamplingParams(
            **{"max_tokens": _DEFAULT_MAX_TOKENS, **given},
            stop=[text for text in stop if text],
            logprobs=0 if self._flag("return_cumulative_logprob") else None,
        )

    def _text(self, name: str) -> str:
        value = self._scalar(name)
        if value is None:
            raise InflightError(f"{name} is missing; every request needs it")
        return _decoded(name, value)

    def _flag(self, name: str) -> bool:
        return bool(self._scalar(name))

    def _scalar(self, name: str) -> Any:
        tensor = self._inputs.get(name)
        if tensor is None:
            return None
        if tensor.size != 1:
            raise InflightError(f"{name} has {tensor.size} values; it must have one: send a request for each text")
        return tensor.item()


def _strings(text: str) -> np.ndarray:
    return np.array([text.encode()], object)


def _decoded(name: str, text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise InflightError(f"{name} is not valid UTF-8: {error.reason} at byte {error.start}") from error
