"""Offline inference and async streams over the batch manager that the Triton backend runs.

For example:

    with LLM("model.gguf") as llm:
        for output in llm.generate(["Hello", "你好"], SamplingParams(temperature=0, max_tokens=32)):
            print(output.outputs[0].text)
"""

import asyncio
import os
import queue
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from inflight import _native
from inflight.argument_types import is_integer, is_list, require_integer, require_unicode
from inflight.engine_cache import engine_directory
from inflight.errors import InflightError
from inflight.generation import CompletionOutput, Generation, RequestOutput, join
from inflight.sampling_params import SamplingParams
from inflight.text import Tokenizer

__all__ = ["LLM", "CompletionOutput", "RequestOutput", "SamplingParams"]

Prompt = str | Sequence[int]
Messages = Sequence[Mapping]


@dataclass
class _Request:
    """A submitted request."""

    id: int
    prompt: Prompt
    input_ids: list[int]
    generation: Generation

    def output(self, completion: CompletionOutput) -> RequestOutput:
        prompt = self.prompt if isinstance(self.prompt, str) else None
        return RequestOutput(self.id, prompt, self.input_ids, [completion], self.generation.finished)


class LLM:
    """A model that is ready to generate.

    path: a model (Hugging Face directory or GGUF file), which is converted and built into `cache_dir` the first
    time; a checkpoint, which is built there; or an engine. cache_dir: by default `inflight` in XDG_CACHE_HOME or
    ~/.cache. num_threads: 0 is the CPUs that this process may use. build_options: fields of
    inflight.engine.config.BuildOptions (max_batch_size, max_seq_len, dtype …); an engine takes none.

    Methods may be called from several threads; their requests share one batch. Raises InflightError.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        num_threads: int = 0,
        cache_dir: str | Path | None = None,
        progress: bool = True,
        **build_options,
    ):
        if not isinstance(path, (str, os.PathLike)):
            raise InflightError(f"path is {path!r}; it must be a str or a Path")
        require_integer("num_threads", num_threads)
        self.engine_dir = engine_directory(Path(path), cache_dir, progress, **build_options)
        self.tokenizer = Tokenizer(self.engine_dir / "tokenizer")
        self._manager = _native.BatchManager(self.engine_dir, num_threads=num_threads)
        self._info = self._manager.info
        self._closed = False

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        progress: bool = False,
    ) -> list[RequestOutput]:
        """Continues all prompts at once; outputs are in the order of the prompts.

        prompts: a text, a list of token ids, or a list of these. sampling: one for all, or one for each prompt.
        A prompt that cannot be served raises, and the others are cancelled.
        """
        if not isinstance(prompts, str) and not is_list(prompts):
            raise InflightError(f"prompts is {prompts!r}; it must be a text, a list of token ids, or a list of these")
        prompts = [prompts] if _is_prompt(prompts) else list(prompts)
        return self._run(prompts, sampling, add_special_tokens=True, progress=progress)

    def chat(
        self,
        messages: Messages | Sequence[Messages],
        sampling: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        progress: bool = False,
    ) -> list[RequestOutput]:
        """The assistant's answer to one conversation, [{"role": "user", "content": "…"}, …], or to each of several."""
        conversations = [messages] if _is_conversation(messages) else messages
        if not is_list(conversations) or not all(map(_is_conversation, conversations)):
            raise InflightError(
                f'messages is {messages!r}; it must be a list of {{"role": …, "content": …}}, or a list of such lists'
            )
        prompts = [self.tokenizer.chat_prompt(conversation) for conversation in conversations]
        return self._run(prompts, sampling, add_special_tokens=False, progress=progress)

    async def stream(
        self, prompt: Prompt | Messages, sampling: SamplingParams | None = None
    ) -> AsyncIterator[RequestOutput]:
        """Yields what the output gains, as it comes; the texts join to exactly what `generate` returns.

        prompt: a text, token ids, or a conversation's messages. A consumer that stops early, by `aclose` or by
        being cancelled, cancels the request.
        """
        is_chat = _is_conversation(prompt)
        text = self.tokenizer.chat_prompt(prompt) if is_chat else prompt
        loop = asyncio.get_running_loop()
        responses: asyncio.Queue = asyncio.Queue()

        def deliver(request_id: int, response: _native.Response) -> None:
            try:
                loop.call_soon_threadsafe(responses.put_nowait, response)
            except RuntimeError:  # the event loop is closed: nobody reads on
                self._cancel(request_id)

        request = self._submit(text, sampling or SamplingParams(), deliver, True, add_special_tokens=not is_chat)
        try:
            while not request.generation.finished:
                response = await responses.get()
                if response.error is not None:
                    raise response.error
                completion = request.generation.push(response)
                if completion.text or completion.token_ids or request.generation.finished:
                    yield request.output(completion)
        finally:
            self._cancel(request.id)

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

    def _run(
        self,
        prompts: list[Prompt],
        sampling: SamplingParams | Sequence[SamplingParams] | None,
        add_special_tokens: bool,
        progress: bool,
    ) -> list[RequestOutput]:
        self._require_open()
        one_for_all = sampling is None or isinstance(sampling, SamplingParams)
        if not one_for_all and not (is_list(sampling) and all(isinstance(one, SamplingParams) for one in sampling)):
            raise InflightError(f"sampling is {sampling!r}; it must be SamplingParams or a list of one for each prompt")
        each_sampling = [sampling or SamplingParams()] * len(prompts) if one_for_all else list(sampling)
        if len(each_sampling) != len(prompts):
            raise InflightError(f"there are {len(prompts)} prompts and {len(each_sampling)} sampling parameters")

        responses: queue.SimpleQueue = queue.SimpleQueue()
        requests: dict[int, _Request] = {}
        pieces: dict[int, list[CompletionOutput]] = {}
        try:
            for index, (prompt, params) in enumerate(zip(prompts, each_sampling, strict=True)):
                streaming = bool(params.stop_strings)  # a stop string ends the request as soon as it is there
                try:
                    request = self._submit(
                        prompt, params, lambda *response: responses.put(response), streaming, add_special_tokens
                    )
                except InflightError as error:
                    if len(prompts) == 1:
                        raise
                    raise InflightError(f"prompt {index}: {error}", error.code) from None
                requests[request.id], pieces[request.id] = request, []

            unfinished = len(requests)
            with tqdm(total=unfinished, unit=" prompts", disable=not progress) as bar:
                while unfinished:
                    request_id, response = responses.get()
                    generation = requests[request_id].generation
                    if generation.finished:
                        continue
                    if response.error is not None:
                        raise response.error
                    pieces[request_id].append(generation.push(response))
                    if generation.finished:
                        self._cancel(request_id)
                        unfinished -= 1
                        bar.update()
        finally:
            for request in requests.values():
                if not request.generation.finished:
                    self._cancel(request.id)
        return [request.output(join(pieces[request.id])) for request in requests.values()]

    def _submit(
        self,
        prompt: Prompt,
        sampling: SamplingParams,
        callback: Callable[[int, _native.Response], None],
        streaming: bool,
        add_special_tokens: bool,
    ) -> _Request:
        self._require_open()
        if not isinstance(sampling, SamplingParams):
            raise InflightError(f"sampling is {sampling!r}; it must be SamplingParams")
        if isinstance(prompt, str):
            require_unicode("prompt", prompt)
            input_ids = self.tokenizer.encode(prompt, add_special_tokens)
        else:
            input_ids = self._checked_ids(prompt)
        max_tokens = sampling.max_tokens
        if max_tokens is None:
            max_tokens = max(self.max_seq_len - len(input_ids), 1)
        request_id = self._manager.submit(
            input_ids,
            max_tokens,
            callback,
            streaming=streaming,
            **sampling.native_options(self.tokenizer, self._info.end_ids),
        )
        return _Request(request_id, prompt, input_ids, Generation(self.tokenizer, sampling))

    def _checked_ids(self, prompt: Sequence[int]) -> list[int]:
        if not is_list(prompt):
            raise InflightError(f"prompt is {prompt!r}; it must be a text or a list of token ids")
        for position, token in enumerate(prompt):
            if not is_integer(token) or not 0 <= token < self._info.vocab_size:
                raise InflightError(
                    f"input_ids holds {token!r} at position {position}; token ids of this model are 0 to "
                    f"{self._info.vocab_size - 1}"
                )
        return [int(token) for token in prompt]

    def _require_open(self) -> None:
        if self._closed:
            raise InflightError("this LLM is closed", "unavailable")

    def _cancel(self, request_id: int) -> None:
        try:
            self._manager.cancel(request_id)
        except InflightError as error:
            if error.code != "unavailable":  # a closed manager has ended the request already
                raise


def _is_prompt(prompts: Prompt | Sequence[Prompt]) -> bool:
    return isinstance(prompts, str) or (len(prompts) > 0 and is_integer(prompts[0]))


def _is_conversation(messages: Prompt | Messages | Sequence[Messages]) -> bool:
    return is_list(messages) and len(messages) > 0 and all(isinstance(message, Mapping) for message in messages)
