import asyncio
import time

import pytest
from logprobs_of import chosen_logprobs

from inflight.errors import InflightError
from inflight.llm import LLM, SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
PROMPTS = ["The river", "你好，世界", "🙂 ", "a", "  leading spaces"]


async def read(stream):
    return [output async for output in stream]


def text_of(outputs):
    return "".join(output.outputs[0].text for output in outputs)


def tokens_of(outputs):
    return [token for output in outputs for token in output.outputs[0].token_ids]


def wait_until_idle(llm):
    deadline = time.monotonic() + 10
    while (statistics := llm.statistics())["free_blocks"] != statistics["total_blocks"]:
        assert time.monotonic() < deadline, statistics
        time.sleep(0.01)


def test_outputs_come_in_the_order_of_the_prompts(llm):
    outputs = llm.generate(PROMPTS, GREEDY)
    assert [output.prompt for output in outputs] == PROMPTS
    for prompt, output in zip(PROMPTS, outputs, strict=True):
        (alone,) = llm.generate(prompt, GREEDY)
        assert alone.outputs[0].token_ids == output.outputs[0].token_ids
        assert output.finished and output.outputs[0].finish_reason == "length"
        assert llm.tokenizer.decode(output.outputs[0].token_ids) == output.outputs[0].text


def test_prompts_may_be_token_ids(llm):
    ids = llm.tokenizer.encode("The river")
    (from_text,) = llm.generate("The river", GREEDY)
    for prompts in (ids, [ids]):
        (from_ids,) = llm.generate(prompts, GREEDY)
        assert from_ids.prompt is None
        assert from_ids.prompt_token_ids == from_text.prompt_token_ids == ids
        assert from_ids.outputs == from_text.outputs


def test_no_prompts_give_no_outputs(llm):
    assert llm.generate([]) == []


def test_every_prompt_may_have_its_own_sampling(llm):
    sampling = [SamplingParams(temperature=0, max_tokens=length, ignore_eos=True) for length in (3, 7)]
    outputs = llm.generate(["a", "b"], sampling)
    assert [len(output.outputs[0].token_ids) for output in outputs] == [3, 7]
    with pytest.raises(InflightError, match="3 prompts and 2 values of sampling_params"):
        llm.generate(["a", "b", "c"], sampling)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_stream_joins_to_the_text_that_is_not_streamed(llm, prompt):
    sampling = SamplingParams(temperature=1.5, seed=3, max_tokens=100, ignore_eos=True, logprobs=0)
    (whole,) = llm.generate(prompt, sampling)
    pieces = asyncio.run(read(llm.stream(prompt, sampling)))
    assert text_of(pieces) == whole.outputs[0].text
    assert tokens_of(pieces) == whole.outputs[0].token_ids
    assert [value for piece in pieces for value in piece.outputs[0].logprobs] == whole.outputs[0].logprobs
    assert [piece.finished for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert pieces[-1].outputs[0].cumulative_logprob == pytest.approx(sum(chosen_logprobs(whole.outputs[0])), rel=1e-5)


def test_many_streams_at_once_are_each_their_own(llm):
    expected = [output.outputs[0].text for output in llm.generate(PROMPTS * 4, GREEDY)]

    async def read_all():
        return await asyncio.gather(*(read(llm.stream(prompt, GREEDY)) for prompt in PROMPTS * 4))

    assert [text_of(pieces) for pieces in asyncio.run(read_all())] == expected


def test_a_stop_string_ends_the_text_and_the_request(llm):
    (whole,) = llm.generate("The river", GREEDY)
    text = whole.outputs[0].text
    stop = text[len(text) // 2 :][:3]
    sampling = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True, stop=["never generated", stop])
    (stopped,) = llm.generate("The river", sampling)
    assert stopped.outputs[0].text == text[: text.find(stop)]
    assert (stopped.outputs[0].finish_reason, stopped.outputs[0].stop_reason) == ("stop", stop)
    assert stopped.outputs[0].token_ids == whole.outputs[0].token_ids[: len(stopped.outputs[0].token_ids)]
    pieces = asyncio.run(read(llm.stream("The river", sampling)))
    assert text_of(pieces) == stopped.outputs[0].text
    assert tokens_of(pieces) == stopped.outputs[0].token_ids
    wait_until_idle(llm)


def test_no_stop_string_counts_before_min_tokens(llm):
    (whole,) = llm.generate("The river", GREEDY)
    stop = whole.outputs[0].text[:2]
    sampling = SamplingParams(temperature=0, max_tokens=40, min_tokens=40, ignore_eos=True, stop=stop)
    (output,) = llm.generate("The river", sampling)
    assert output.outputs[0].text == whole.outputs[0].text


def test_stop_token_ids_end_the_generation(llm):
    (whole,) = llm.generate("The river", GREEDY)
    tokens = whole.outputs[0].token_ids
    stop = tokens[10]
    sampling = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True, stop_token_ids=[stop])
    (output,) = llm.generate("The river", sampling)
    assert output.outputs[0].token_ids == tokens[: tokens.index(stop)]
    assert output.outputs[0].finish_reason == "stop"


def test_bad_words_do_not_come_up(llm):
    (whole,) = llm.generate("The river", GREEDY)
    words = {token: llm.tokenizer.decode([token]) for token in whole.outputs[0].token_ids}
    token = next(token for token, word in words.items() if llm.tokenizer.encode(word) == [token])
    sampling = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True, bad_words=[words[token]])
    (output,) = llm.generate("The river", sampling)
    assert token not in output.outputs[0].token_ids


def test_seeds_decide_what_is_sampled(llm):
    def run(seed):
        return llm.generate("a", SamplingParams(seed=seed, max_tokens=20, ignore_eos=True))[0].outputs[0].token_ids

    assert run(1) == run(1)
    assert run(1) != run(2)
    assert run(None) != run(None)


def test_max_tokens_none_is_as_many_as_the_engine_holds(llm):
    (output,) = llm.generate("a", SamplingParams(temperature=0, max_tokens=None, ignore_eos=True))
    assert len(output.prompt_token_ids) + len(output.outputs[0].token_ids) == llm.max_seq_len


def test_a_consumer_that_leaves_cancels_its_request(llm):
    async def leave_early():
        async for _ in llm.stream("a", SamplingParams(max_tokens=200, ignore_eos=True)):
            break

    async def cancelled():
        started = asyncio.Event()

        async def consume():
            async for _ in llm.stream("a", SamplingParams(max_tokens=200, ignore_eos=True)):
                started.set()
                await asyncio.sleep(60)

        task = asyncio.create_task(consume())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave_early())
    asyncio.run(cancelled())
    wait_until_idle(llm)


def test_a_prompt_that_cannot_be_served_is_named_and_the_others_are_cancelled(llm):
    with pytest.raises(InflightError, match=r"prompt 1: input_ids has \d+ tokens") as caught:
        llm.generate(["a", "b " * 1000], GREEDY)
    assert caught.value.code == "invalid_argument"
    wait_until_idle(llm)
    assert len(llm.generate("a", GREEDY)) == 1


@pytest.mark.parametrize("token", [-1, 480, 2**31, -(2**40)])
def test_token_ids_outside_of_the_vocabulary_are_named(llm, token):
    with pytest.raises(InflightError, match=f"prompt holds {token} at position 1; token ids .* are 0 to 479"):
        llm.generate([1, token], GREEDY)


@pytest.mark.parametrize(
    "sampling, message",
    [
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_k": -2}, "top_k is -2"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_tokens": 2**40}, "max_tokens is 1099511627776"),
        ({"min_tokens": 2**31}, "min_tokens is 2147483648"),
        ({"stop_token_ids": [1, 2**31]}, "stop_token_ids holds 2147483648"),
        ({"seed": -1}, "seed is -1"),
        ({"logprobs": 21}, "logprobs is 21"),
        ({"stop": [""]}, "empty string"),
        ({"bad_words": "word"}, "bad_words is 'word'; it must be a list of strings"),
        ({"max_tokens": "5"}, "max_tokens is '5'; it must be None or an integer"),
        ({"max_tokens": True}, "max_tokens is True"),
        ({"min_tokens": None}, "min_tokens is None; it must be an integer"),
        ({"top_k": 1.5}, "top_k is 1.5"),
        ({"temperature": "hot"}, "temperature is 'hot'; it must be a number"),
        ({"top_p": None}, "top_p is None"),
        ({"ignore_eos": "no"}, "ignore_eos is 'no'; it must be True or False"),
        ({"stop": 5}, "stop is 5; it must be a list of strings"),
        ({"stop": [5]}, r"stop is \[5\]; it must be a list of strings"),
        ({"stop": "a\ud800"}, r"stop is not valid Unicode text: it has the lone surrogate '\\ud800' at position 1"),
        ({"bad_words": ["\udfff"]}, "bad_words is not valid Unicode text"),
        ({"stop_token_ids": 5}, "stop_token_ids is 5; it must be a list of integers"),
    ],
)
def test_sampling_that_makes_no_sense_is_refused(sampling, message):
    with pytest.raises(InflightError, match=message):
        SamplingParams(**sampling)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda llm: llm.generate(5), "prompts is 5; it must be a text"),
        (lambda llm: llm.generate(b"a"), "prompts is b'a'"),
        (lambda llm: llm.generate(["a", None]), "prompt 1: prompt is None; it must be a text or a list of token ids"),
        (lambda llm: llm.generate([1, "a"]), "prompt holds 'a' at position 1"),
        (lambda llm: llm.generate("a\ud800"), r"prompt is not valid Unicode text: .*'\\ud800' at position 1"),
        (lambda llm: llm.generate("a", 5), "sampling_params is 5; it must be SamplingParams"),
        (lambda llm: llm.generate("a", [None]), r"sampling_params is \[None\]"),
        (lambda llm: llm.chat(5), "messages is 5; it must be a list of"),
        (lambda llm: llm.chat([{"role": "user", "content": "a"}, 5]), "messages is "),
        (lambda llm: asyncio.run(read(llm.stream(5))), "prompt is 5"),
        (
            lambda llm: asyncio.run(read(llm.stream("a", [SamplingParams()] * 2))),
            "1 prompts and 2 values of sampling_params",
        ),
        (lambda llm: llm.generate({"text": "a"}), "prompt is {'text': 'a'}; a dict must be"),
        (lambda llm: llm.generate("a", priority="high"), "priority is 'high'; it must be a number"),
        (lambda llm: llm.generate(["a", "b"], priority=[1]), "2 prompts and 1 values of priority"),
        (lambda llm: llm.beam_search("a", SamplingParams()), "params is SamplingParams.*; it must be BeamSearchParams"),
        (lambda llm: asyncio.run(read(llm.stream("a", {"max_tokens": 5}))), "sampling_params is {'max_tokens': 5}"),
        (lambda llm: LLM(5), "model is 5; it must be a str or a Path"),
        (lambda llm: LLM(llm.engine_dir, num_threads="all"), "num_threads is 'all'; it must be an integer"),
    ],
)
def test_arguments_of_the_wrong_type_are_named(llm, call, message):
    with pytest.raises(InflightError, match=message):
        call(llm)
    wait_until_idle(llm)


def test_a_closed_llm_says_so(engine_dir):
    with LLM(engine_dir, num_threads=1) as llm:
        pass
    uses = [lambda: llm.generate("a"), lambda: asyncio.run(read(llm.stream("a"))), llm.statistics]
    for use in uses:
        with pytest.raises(InflightError, match="this LLM is closed") as caught:
            use()
        assert caught.value.code == "unavailable"
    llm.close()


def test_closing_ends_streams_with_an_error(engine_dir):
    llm = LLM(engine_dir, num_threads=1)

    async def close_in_the_middle():
        sampling = SamplingParams(max_tokens=200, ignore_eos=True)
        streams = [asyncio.create_task(read(llm.stream("a", sampling))) for _ in range(40)]  # five times its batch
        await asyncio.sleep(0)  # they are submitted
        llm.close()
        return await asyncio.gather(*streams, return_exceptions=True)

    results = asyncio.run(close_in_the_middle())
    assert isinstance(results[-1], InflightError) and results[-1].code == "unavailable"
