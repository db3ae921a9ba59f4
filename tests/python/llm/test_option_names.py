"""Options by the names of other programs, misspelled ones, and values of any type."""

import asyncio
from dataclasses import fields

import pytest

from inflight.engine.config import BuildOptions
from inflight.errors import InflightError
from inflight.llm import LLM, BeamSearchParams, SamplingParams, StructuredOutputsParams
from inflight.llm.serving_options import ServingOptions

CHAT = [{"role": "user", "content": "a"}]


async def first(stream):
    return await anext(stream)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda llm: SamplingParams(temprature=1), "SamplingParams has no option temprature; did you mean temperature"),
        (lambda llm: SamplingParams(max_token=1), "no option max_token; did you mean max_tokens"),
        (lambda llm: SamplingParams(max_new_tokens=1), "no option max_new_tokens: say max_tokens"),
        (lambda llm: SamplingParams(best_of=2), "no option best_of: n sequences"),
        (lambda llm: SamplingParams(color=1), "no option color; there are n, temperature, top_p"),
        (lambda llm: BeamSearchParams(2, 5, length_penality=1), "did you mean length_penalty"),
        (lambda llm: BeamSearchParams(2, 5, temperature=1), "BeamSearchParams has no option temperature: a beam"),
        (lambda llm: StructuredOutputsParams(json_schema="{}"), "no option json_schema; there are json, regex"),
        (lambda llm: llm.generate("a", sampling=SamplingParams()), "no option sampling: say sampling_params"),
        (lambda llm: llm.generate("a", use_tqmd=True), "generate has no option use_tqmd; did you mean use_tqdm"),
        (lambda llm: llm.generate("a", lora_request=1), "no option lora_request: LoRA adapters are not served"),
        (lambda llm: llm.chat(CHAT, progress=True), "chat has no option progress: say use_tqdm"),
        (lambda llm: llm.beam_search("a", BeamSearchParams(1, 2), speed=1), "no option speed; there are"),
        (lambda llm: asyncio.run(first(llm.stream("a", sampling=1))), "stream has no option sampling: say"),
        (lambda llm: LLM(llm.engine_dir, temprature=1), "did you mean temperature.* option of SamplingParams"),
        (lambda llm: LLM(llm.engine_dir, num_thread=1), "LLM has no option num_thread; did you mean num_threads"),
        (lambda llm: LLM(path=llm.engine_dir), "LLM has no option path: say model"),
        (lambda llm: LLM(), "model is None; it must be a str or a Path"),
        (lambda llm: LLM(""), "model is ''; it must be a str or a Path"),
        (lambda llm: LLM(llm.engine_dir, tensor_parallel_size=2), "tensor_parallel_size is 2; there is only 1"),
        (lambda llm: LLM(llm.engine_dir, gpu_memory_utilization=0.9), "gpu_memory_utilization: kv_cache_memory"),
        (lambda llm: LLM(llm.engine_dir, max_model_len=64), "max_seq_len must be given to `inflight build`"),
        (lambda llm: LLM("model", max_model_len=64, max_seq_len=64), "two names of one option"),
        (lambda llm: LLM("Qwen/Qwen3-0.6B"), "hf download Qwen/Qwen3-0.6B"),
        (lambda llm: llm.chat(CHAT, tools="search"), "tools is 'search'; it must be a list"),
        (lambda llm: llm.chat(CHAT, chat_template="{{"), "chat_template: the chat template is not valid"),
        (lambda llm: llm.chat(CHAT, chat_template_kwargs={"tools": []}), "give it as an argument of chat"),
    ],
)  # fmt: skip
def test_an_option_that_is_not_known_is_answered_with_what_is_meant(llm, call, message):
    with pytest.raises(InflightError, match=message):
        call(llm)


def test_options_in_the_words_of_vllm_do_what_they_say(tiny_directory, tmp_path):
    model = str(tiny_directory("llama-tied"))
    options = {"max_model_len": 48, "max_num_seqs": 3, "max_num_batched_tokens": 40, "block_size": 8}
    with LLM(
        model=model, cache_dir=tmp_path, progress=False, num_threads=1, tensor_parallel_size=1, trust_remote_code=False,
        **options,
    ) as llm:  # fmt: skip
        info = llm._info
        assert (info.max_seq_len, info.max_batch_size, info.max_num_tokens, info.tokens_per_block) == (48, 3, 40, 8)
        outputs = llm.generate(prompts="a", sampling_params=SamplingParams(max_tokens=2), use_tqdm=False)
        assert len(outputs[0].outputs[0].token_ids) <= 2
        template = "{{ messages[0].content }} {{ tools[0].name }} {{ mood }}"
        (output,) = llm.chat(
            CHAT,
            sampling_params=llm.get_default_sampling_params(),
            tools=[{"name": "search"}],
            chat_template=template,
            chat_template_kwargs={"mood": "good"},
        )
        assert output.prompt == "a search good"


def test_a_build_that_is_refused_names_the_options_of_llm(tiny_directory, tmp_path):
    with pytest.raises(InflightError, match="^max_batch_size is 0; expected") as caught:
        LLM(tiny_directory("llama-tied"), cache_dir=tmp_path, max_batch_size=0)
    assert "--" not in str(caught.value)
    assert not list(tmp_path.iterdir()), "it is refused before any work"


VALUES = [
    object(),
    "x",
    "",
    b"x",
    -5,
    2**70,
    -(2**70),
    float("nan"),
    float("inf"),
    [None],
    {},
    {"a": 1},
    True,
    None,
    0,
    1,
]


@pytest.mark.parametrize("name", [field.name for field in fields(SamplingParams)])
def test_sampling_of_any_value_is_served_or_refused(llm, name):
    for value in VALUES:
        try:
            outputs = llm.generate("a", SamplingParams(**{"max_tokens": 2, name: value}))
        except InflightError as error:
            assert str(error)
        else:
            assert outputs[0].finished


@pytest.mark.parametrize("name", [field.name for field in [*fields(BuildOptions), *fields(ServingOptions)]])
def test_an_option_of_any_value_is_taken_or_refused(llm, engine_dir, tmp_path, name):
    is_serving = name in {field.name for field in fields(ServingOptions)}
    for value in VALUES:
        try:
            if is_serving:
                LLM(engine_dir, **{"num_threads": 1, name: value}).close()
            else:
                BuildOptions(**{name: value}).check()
        except InflightError as error:
            assert str(error)


@pytest.mark.parametrize("value", VALUES)
def test_arguments_of_any_value_are_taken_or_refused(llm, engine_dir, tmp_path, value):
    sampling = SamplingParams(max_tokens=1)
    for call in (
        lambda: llm.generate(value, sampling),
        lambda: llm.generate("a", value),
        lambda: llm.generate("a", sampling, priority=value),
        lambda: llm.generate("a", sampling, use_tqdm=value),
        lambda: llm.chat(value, sampling),
        lambda: llm.chat(CHAT, sampling, tools=value, chat_template="x"),
        lambda: llm.chat(CHAT, sampling, chat_template=value),
        lambda: llm.chat(CHAT, sampling, chat_template_kwargs=value),
        lambda: llm.beam_search(value, BeamSearchParams(1, 1)),
        lambda: asyncio.run(first(llm.stream(value, sampling))),
        lambda: LLM(tmp_path / "nowhere", cache_dir=value),
        lambda: LLM(value),
    ):
        try:
            call()
        except InflightError as error:
            assert str(error)
