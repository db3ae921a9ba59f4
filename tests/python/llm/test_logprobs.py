"""Log-probs of chosen and of likely tokens, against the logits that come with them."""

import asyncio

import numpy as np
import pytest

from inflight.errors import InflightError
from inflight.llm import LLM, SamplingParams

PROMPTS = ["The river", "a b c", "Hello"]


def log_softmax(logits):
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def check(entries, token, row, count, tokenizer):
    """entries: of one token, the model's log-probs being `row`."""
    likeliest = np.argsort(-row, kind="stable")[:count]
    assert list(entries) == list(dict.fromkeys([token, *likeliest]))
    for each, entry in entries.items():
        assert entry.logprob == pytest.approx(row[each], abs=1e-4)
        assert entry.rank == 1 + (row > row[each]).sum()
        assert entry.decoded_token == tokenizer.decode([each], skip_special_tokens=False)


@pytest.mark.parametrize("temperature", [0.0, 1.5])
@pytest.mark.parametrize("speculation", [None, {"method": "ngram", "num_speculative_tokens": 3}])
def test_each_token_has_the_likeliest_tokens_in_its_place(engine_dir, temperature, speculation):
    counts = [5, None, 0, 20]
    sampling = [
        SamplingParams(
            temperature=temperature, seed=3, max_tokens=30, ignore_eos=True, logprobs=n, return_generation_logits=True
        )
        for n in counts
    ]
    with LLM(engine_dir, num_threads=2, speculative_config=speculation) as llm:
        outputs = llm.generate(["a b a b a b", "The river", "c d c d c", "Hello"], sampling)
        for output, count in zip([each.outputs[0] for each in outputs], counts, strict=True):
            if count is None:
                assert output.logprobs is None
                continue
            rows = log_softmax(output.generation_logits)
            assert len(output.logprobs) == len(output.token_ids) == 30
            for entries, token, row in zip(output.logprobs, output.token_ids, rows, strict=True):
                check(entries, token, row, count, llm.get_tokenizer())


def test_a_stream_brings_the_same(llm):
    sampling = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True, logprobs=3, prompt_logprobs=2)
    (whole,) = llm.generate("The river", sampling)

    async def read():
        return [piece async for piece in llm.stream("The river", sampling)]

    pieces = asyncio.run(read())
    joined = [entries for piece in pieces for entries in piece.outputs[0].logprobs]
    assert [list(entries) for entries in joined] == [list(entries) for entries in whole.outputs[0].logprobs]
    assert all(piece.prompt_logprobs == whole.prompt_logprobs for piece in pieces)


@pytest.mark.parametrize("count", [0, 4])
def test_each_token_of_a_prompt_has_them_too(llm, count):
    sampling = SamplingParams(temperature=0, max_tokens=2, prompt_logprobs=count, return_context_logits=True, n=2)
    for output in llm.generate(PROMPTS, sampling):
        rows = log_softmax(output.context_logits)
        assert output.prompt_logprobs[0] is None and len(output.prompt_logprobs) == len(output.prompt_token_ids)
        for entries, token, row in zip(output.prompt_logprobs[1:], output.prompt_token_ids[1:], rows, strict=False):
            check(entries, token, row, count, llm.get_tokenizer())
    (output,) = llm.generate("a b c", SamplingParams(max_tokens=1, prompt_logprobs=count))
    assert output.context_logits is None, "nobody has asked for them"


@pytest.mark.parametrize("name", ["logprobs", "prompt_logprobs"])
@pytest.mark.parametrize("count", [-1, 21, 1.5, "all"])
def test_their_number_has_a_limit(name, count):
    with pytest.raises(InflightError, match=f"{name} is .*; it must be None or"):
        SamplingParams(**{name: count})


def test_min_p_leaves_likely_tokens_alone(llm):
    greedy, certain = (
        llm.generate(PROMPTS, SamplingParams(max_tokens=12, ignore_eos=True, **options))
        for options in ({"temperature": 0}, {"temperature": 2.0, "min_p": 1.0})
    )
    assert [each.outputs[0].token_ids for each in certain] == [each.outputs[0].token_ids for each in greedy]
    sampling = SamplingParams(
        temperature=2.0, min_p=0.3, seed=1, max_tokens=60, ignore_eos=True, return_generation_logits=True
    )
    output = llm.generate("a", sampling)[0].outputs[0]
    scaled = output.generation_logits / 2.0
    shares = np.exp(scaled[np.arange(60), output.token_ids] - scaled.max(-1))
    assert shares.min() >= 0.3 - 1e-4 and shares.min() < 1
    with pytest.raises(InflightError, match="min_p is 1.5; it must be in 0 to 1"):
        SamplingParams(min_p=1.5)


def test_no_other_token_than_the_allowed_ones_is_generated(llm):
    sampling = SamplingParams(temperature=5.0, max_tokens=40, ignore_eos=True, allowed_token_ids=[7, 9, 300])
    assert set(llm.generate("a", sampling)[0].outputs[0].token_ids) == {7, 9, 300}
    with pytest.raises(InflightError, match="allowed_token_ids holds token 480; token ids of this model are 0 to 479"):
        llm.generate("a", SamplingParams(allowed_token_ids=[480]))


def test_nothing_is_detokenized_unless_it_should_be(llm):
    sampling = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, logprobs=2, detokenize=False)
    output = llm.generate("a", sampling)[0].outputs[0]
    assert output.text == "" and len(output.token_ids) == 8
    assert {entry.decoded_token for entries in output.logprobs for entry in entries.values()} == {None}
    with pytest.raises(InflightError, match="stop needs the text"):
        SamplingParams(stop="x", detokenize=False)
