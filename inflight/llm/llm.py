"""Offline inference and async streams over the batch manager that the Triton backend runs.

For example:

    with LLM("model.gguf") as llm:
        for output in llm.generate(["Hello", "你好"], SamplingParams(temperature=0, max_tokens=32)):
            print(output.outputs[0].text)
"""

import asyncio
import inspect
import os
import queue
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Generic, TypeVar, cast

from tqdm import tqdm

from inflight import _native
from inflight.errors import InflightError
from inflight.llm.argument_types import is_list, require_flag, require_path, require_text
from inflight.llm.beam_search import BeamSearchCollector, BeamSearchOutput, BeamSearchParams
from inflight.llm.draft_engine import draft_engine_directory
from inflight.llm.engine_cache import engine_directory
from inflight.llm.generation import CompletionOutput, Generation, GenerationCollector, RequestOutput
from inflight.llm.option_names import require_known_options
from inflight.llm.options import in_words_of_llm, split_options
from inflight.llm.prompts import (
    Messages,
    Prompt,
    PromptLike,
    encode_prompt,
    is_conversation,
    list_conversations,
    list_prompts,
)
from inflight.llm.sampling_params import SamplingParams
from inflight.text import Tokenizer

Params = TypeVar("Params", SamplingParams, BeamSearchParams)
Collector = TypeVar("Collector", GenerationCollector, BeamSearchCollector)
_DEFAULT_PRIORITY = 0.5
_OF_EACH_PROMPT = {"sampling_params": (SamplingParams, "SamplingParams"), "priority": (Real, "a number")}
_ADVICE = {
    "continue_final_message": "render the prompt with LLM.get_tokenizer().chat_prompt and call generate",
    "lora_request": "LoRA adapters are not served: merge the adapter into its base model",
    "progress": "say use_tqdm",
    "prompt_token_ids": 'prompts takes token ids, or {"prompt_token_ids": ids}',
    "sampling": "say sampling_params",
}


@dataclass
class _Request(Generic[Collector]):
    """A submitted request, and what becomes of it."""

    id: int
    prompt: Prompt
    collector: Collector


class LLM:
    """A model that is ready to generate.

    model: the path of a model (Hugging Face directory or GGUF file), which is converted and built into `cache_dir` the
    first time; of a checkpoint, which is built there; or of an engine. cache_dir: by default `inflight` in
    XDG_CACHE_HOME or ~/.cache. options: fields of inflight.llm.serving_options.ServingOptions (enable_prefix_caching,
    scheduler_policy, speculative_config …) and, unless `model` is an engine, of inflight.engine.config.BuildOptions
    (max_batch_size, max_seq_len, dtype …), also in vLLM's words (max_num_seqs, max_model_len …).

    Methods may be called from several threads; their requests share one batch. Raises InflightError.
    """

    def __init__(
        self,
        model: str | os.PathLike | None = None,
        *,
        cache_dir: str | os.PathLike | None = None,
        progress: bool = True,
        **options: Any,
    ):
        serving, build = split_options(options)
        path, cache = require_path("model", model), None if cache_dir is None else require_path("cache_dir", cache_dir)
        require_flag("progress", progress)
        try:
            self.engine_dir = engine_directory(path, cache, progress, **build)
        except InflightError as error:
            raise in_words_of_llm(error) from None
        tokenizer_dir = self.engine_dir / "tokenizer"
        self.tokenizer = Tokenizer(tokenizer_dir)
        draft_engine_dir = None
        if serving.draft_model is not None:
            draft_engine_dir = draft_engine_directory(serving.draft_model, self.engine_dir, cache, progress)
        self._manager = _native.BatchManager(self.engine_dir, **serving.native_options(tokenizer_dir, draft_engine_dir))
        self._info = self._manager.info
        self._process = os.getpid()
        self._closed = False

    def generate(
        self,
        prompts: PromptLike | Sequence[PromptLike],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = False,
        priority: float | Sequence[float] = _DEFAULT_PRIORITY,
        **unknown: Any,
    ) -> list[RequestOutput]:
        """Continues all prompts at once; outputs are in the order of the prompts.

        prompts: a text, a list of token ids, {"prompt": text}, {"prompt_token_ids": ids}, or a list of these.
        sampling_params: one for all, or one for each prompt. use_tqdm: draws a progress bar. priority: 0 to 1, one for
        all, or one for each; a larger one is scheduled earlier. A prompt that cannot be served raises, and the others
        are cancelled.
        """
        require_known_options("generate", unknown, _arguments(LLM.generate), _ADVICE)
        return self._generate(list_prompts(prompts), sampling_params, priority, use_tqdm, add_special_tokens=True)

    def chat(
        self,
        messages: Messages | Sequence[Messages],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = False,
        priority: float | Sequence[float] = _DEFAULT_PRIORITY,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        **unknown: Any,
    ) -> list[RequestOutput]:
        """The assistant's answer to one conversation, [{"role": "user", "content": "…"}, …], or to each of several.

        tools: JSON schemas of functions that the template shows the model. chat_template: in place of the model's own.
        chat_template_kwargs: more variables of the template, such as enable_thinking.
        """
        require_known_options("chat", unknown, _arguments(LLM.chat), _ADVICE)
        variables = _template_variables(tools, chat_template, add_generation_prompt, chat_template_kwargs)
        prompts: list[PromptLike] = [
            self.tokenizer.chat_prompt(each, **variables) for each in list_conversations(messages)
        ]
        return self._generate(prompts, sampling_params, priority, use_tqdm, add_special_tokens=False)

    def beam_search(
        self,
        prompts: PromptLike | Sequence[PromptLike],
        params: BeamSearchParams,
        *,
        use_tqdm: bool = False,
        **unknown: Any,
    ) -> list[BeamSearchOutput]:
        """The most likely continuations that a beam search finds of each prompt; prompts as for `generate`."""
        require_known_options("beam_search", unknown, _arguments(LLM.beam_search), _ADVICE)
        if not isinstance(params, BeamSearchParams):
            raise InflightError(f"params is {params!r}; it must be BeamSearchParams")
        each = list_prompts(prompts)
        requests = self._run(
            each,
            [params] * len(each),
            [_DEFAULT_PRIORITY] * len(each),
            lambda prompt, _: BeamSearchCollector(self.tokenizer, prompt.token_ids),
            use_tqdm,
            add_special_tokens=True,
        )
        return [output for request in requests if (output := request.collector.output) is not None]

    async def stream(
        self,
        prompt: PromptLike | Messages,
        sampling_params: SamplingParams | None = None,
        *,
        priority: float = _DEFAULT_PRIORITY,
        **unknown: Any,
    ) -> AsyncIterator[RequestOutput]:
        """Yields what one of the prompt's sequences gains, as it comes: outputs[0], whose `index` says which one. The
        texts of an index join to exactly what `generate` returns.

        prompt: a text, token ids, or a conversation's messages. A consumer that stops early, by `aclose` or by
        being cancelled, cancels the request.
        """
        require_known_options("stream", unknown, _arguments(LLM.stream), _ADVICE)
        self._require_open()
        (sampling,) = _for_each([prompt], "sampling_params", _or_default(sampling_params))
        (priority,) = _for_each([prompt], "priority", priority)
        is_chat = is_conversation(prompt)
        text: Any = self.tokenizer.chat_prompt(cast(Messages, prompt)) if is_chat else prompt
        encoded = encode_prompt(text, self.tokenizer, self._info.vocab_size, add_special_tokens=not is_chat)
        loop = asyncio.get_running_loop()
        responses: asyncio.Queue = asyncio.Queue()

        def deliver(request_id: int, response: _native.Response) -> None:
            try:
                loop.call_soon_threadsafe(responses.put_nowait, response)
            except RuntimeError:  # the event loop is closed: nobody reads on
                self._cancel(request_id)

        generation = Generation(self.tokenizer, sampling, encoded.token_ids)
        request_id = self._submit(encoded, sampling, priority, deliver, streaming=True)
        try:
            while not generation.finished:
                response = await responses.get()
                if response.error is not None:
                    raise response.error
                piece = generation.push(response)
                if piece.text or piece.token_ids or piece.finish_reason:
                    yield _output(request_id, encoded, [piece], generation)
        finally:
            self._cancel(request_id)

    def get_tokenizer(self) -> Tokenizer:
        return self.tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        return SamplingParams()

    def statistics(self) -> dict:
        """Requests, KV-cache blocks and tokens since the start: see inflight._native.BatchManager.statistics."""
        self._require_open()
        return self._manager.statistics()

    @property
    def max_seq_len(self) -> int:
        """Tokens of a prompt and its continuation together."""
        return self._info.max_seq_len

    def close(self) -> None:
        """Ends what is running with an error and frees the engine."""
        self._closed = True
        self._manager.close()

    def __enter__(self) -> "LLM":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _generate(
        self,
        prompts: list[PromptLike],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None,
        priority: float | Sequence[float],
        use_tqdm: bool,
        add_special_tokens: bool,
    ) -> list[RequestOutput]:
        requests = self._run(
            prompts,
            _for_each(prompts, "sampling_params", _or_default(sampling_params)),
            _for_each(prompts, "priority", priority),
            lambda prompt, params: GenerationCollector(self.tokenizer, params, prompt.token_ids),
            use_tqdm,
            add_special_tokens,
        )
        return [
            _output(request.id, request.prompt, request.collector.outputs(), request.collector) for request in requests
        ]

    def _run(
        self,
        prompts: list[PromptLike],
        params: list[Params],
        priorities: list[float],
        new_collector: Callable[[Prompt, Params], Collector],
        use_tqdm: bool,
        add_special_tokens: bool,
    ) -> list[_Request[Collector]]:
        """Serves all prompts to their ends."""
        require_flag("use_tqdm", use_tqdm)
        self._require_open()
        responses: queue.SimpleQueue = queue.SimpleQueue()
        requests: dict[int, _Request[Collector]] = {}
        try:
            for index, (prompt, each_params, priority) in enumerate(zip(prompts, params, priorities, strict=True)):
                try:
                    encoded = encode_prompt(prompt, self.tokenizer, self._info.vocab_size, add_special_tokens)
                    request_id = self._submit(
                        encoded, each_params, priority, lambda *response: responses.put(response), streaming=False
                    )
                except InflightError as error:
                    if len(prompts) == 1:
                        raise
                    raise InflightError(f"prompt {index}: {error}", error.code) from None
                requests[request_id] = _Request(request_id, encoded, new_collector(encoded, each_params))

            unfinished = len(requests)
            with tqdm(total=unfinished, unit=" prompts", disable=not use_tqdm) as bar:
                while unfinished:
                    request_id, response = responses.get()
                    collector = requests[request_id].collector
                    if collector.finished:
                        continue
                    if response.error is not None:
                        raise response.error
                    collector.push(response)
                    if collector.finished:
                        self._cancel(request_id)
                        unfinished -= 1
                        bar.update()
        finally:
            for request in requests.values():
                if not request.collector.finished:
                    self._cancel(request.id)
        return list(requests.values())

    def _submit(
        self,
        prompt: Prompt,
        params: SamplingParams | BeamSearchParams,
        priority: float,
        callback: Callable[[int, _native.Response], None],
        streaming: bool,
    ) -> int:
        max_tokens = params.max_tokens
        if max_tokens is None:
            max_tokens = max(self.max_seq_len - len(prompt.token_ids), 1)
        options = params.native_options(self.tokenizer, self._info)
        return self._manager.submit(
            prompt.token_ids, max_tokens, callback, streaming=streaming, priority=priority, **options
        )

    def _require_open(self) -> None:
        if self._process != os.getpid():
            raise InflightError(
                f"this LLM belongs to process {self._process}, which forked this one: make an LLM here, or start "
                'processes with multiprocessing.get_context("spawn")',
                "unavailable",
            )
        if self._closed:
            raise InflightError("this LLM is closed", "unavailable")

    def _cancel(self, request_id: int) -> None:
        try:
            self._manager.cancel(request_id)
        except InflightError as error:
            if error.code != "unavailable":  # a closed manager has ended the request already
                raise


def _output(
    request_id: int, prompt: Prompt, outputs: list[CompletionOutput], source: Generation | GenerationCollector
) -> RequestOutput:
    return RequestOutput(
        request_id,
        prompt.text,
        prompt.token_ids,
        outputs,
        source.finished,
        source.context_logits,
        source.prompt_logprobs,
    )


def _or_default(sampling_params: Any) -> Any:
    return SamplingParams() if sampling_params is None else sampling_params


def _arguments(method: Callable) -> list[str]:
    return [name for name in inspect.signature(method).parameters if name not in ("self", "unknown")]


def _template_variables(
    tools: Any, chat_template: Any, add_generation_prompt: Any, chat_template_kwargs: Any
) -> dict[str, Any]:
    """The keyword arguments of Tokenizer.chat_prompt."""
    if tools is not None and not (is_list(tools) and all(isinstance(tool, Mapping) for tool in tools)):
        raise InflightError(f"tools is {tools!r}; it must be a list of JSON schemas, dicts")
    if chat_template is not None:
        require_text("chat_template", chat_template)
    require_flag("add_generation_prompt", add_generation_prompt)
    if chat_template_kwargs is not None and not isinstance(chat_template_kwargs, Mapping):
        raise InflightError(f"chat_template_kwargs is {chat_template_kwargs!r}; it must be a dict")
    own = {"tools": tools, "chat_template": chat_template, "add_generation_prompt": add_generation_prompt}
    if twice := own.keys() & (chat_template_kwargs or {}):
        raise InflightError(f"chat_template_kwargs holds {', '.join(sorted(twice))}; give it as an argument of chat")
    return {**own, **(chat_template_kwargs or {})}


def _for_each(prompts: list, name: str, value: Any) -> list:
    """`value` for every prompt, or, if it is a list, its elements."""
    expected_type, description = _OF_EACH_PROMPT[name]
    if not all(isinstance(each, expected_type) for each in (value if is_list(value) else [value])):
        raise InflightError(f"{name} is {value!r}; it must be {description} or a list of one for each prompt")
    values = list(value) if is_list(value) else [value] * len(prompts)
    if len(values) != len(prompts):
        raise InflightError(f"there are {len(prompts)} prompts and {len(values)} values of {name}")
    return values
