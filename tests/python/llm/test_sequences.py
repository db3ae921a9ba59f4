"""Several sequences of one prompt: sampled ones and beams."""

import asyncio

import pytest
from logprobs_of import chosen_logprobs

from inflight.errors import InflightError
from inflight.llm import LLM, BeamSearchParams, SamplingParams


def sampled(**options):
    return SamplingParams(**{"temperature": 1.5, "max_tokens": 30, "ignore_eos": True, "seed": 7, **options})


@pytest.fixture(scope="module")
def beam_llm(tiny_engine):
    with LLM(tiny_engine("llama", max_batch_size=8, max_num_tokens=64, max_beam_width=4), num_threads=1) as llm:
        yield llm


def alone(llm, prompt, seed, **options):
    (output,) = llm.generate(prompt, sampled(seed=seed, **options))
    return output.outputs[0]


def test_n_sequences_have_seeds_that_follow_one_another(llm):
    outputs = llm.generate(["The river", "a"], sampled(n=3, logprobs=0))
    for output in outputs:
        assert [sequence.index for sequence in output.outputs] == [0, 1, 2]
        assert output.finished
        for sequence in output.outputs:
            expected = alone(llm, output.prompt, 7 + sequence.index, logprobs=0)
            assert (sequence.token_ids, sequence.text) == (expected.token_ids, expected.text)
            assert chosen_logprobs(sequence) == pytest.approx(chosen_logprobs(expected), abs=1e-4)


def test_more_sequences_than_the_batch_holds_wait_for_one_another(llm):
    (output,) = llm.generate("a", sampled(n=20, max_tokens=5))
    assert [len(sequence.token_ids) for sequence in output.outputs] == [5] * 20
    assert len({tuple(sequence.token_ids) for sequence in output.outputs}) > 15


def test_streamed_sequences_carry_their_index(llm):
    (whole,) = llm.generate("The river", sampled(n=3))

    async def read():
        return [piece async for piece in llm.stream("The river", sampled(n=3))]

    pieces = asyncio.run(read())
    assert [piece.finished for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    for index, expected in enumerate(whole.outputs):
        own = [piece.outputs[0] for piece in pieces if piece.outputs[0].index == index]
        assert "".join(piece.text for piece in own) == expected.text
        assert [token for piece in own for token in piece.token_ids] == expected.token_ids
        assert [piece.finish_reason for piece in own] == [None] * (len(own) - 1) + ["length"]


def test_a_stop_string_ends_only_the_sequence_that_has_it(llm):
    (whole,) = llm.generate("The river", sampled(n=3))
    text = whole.outputs[1].text
    stop = next(
        text[begin : begin + 3]
        for begin in range(5, len(text) - 3)
        if not any(text[begin : begin + 3] in whole.outputs[other].text for other in (0, 2))
    )
    (stopped,) = llm.generate("The river", sampled(n=3, stop=stop))
    assert stopped.outputs[1].text == text[: text.find(stop)]
    assert [sequence.finish_reason for sequence in stopped.outputs] == ["length", "stop", "length"]
    assert [sequence.stop_reason for sequence in stopped.outputs] == [None, stop, None]
    for other in (0, 2):
        assert stopped.outputs[other] == whole.outputs[other]


def test_a_request_whose_sequences_have_all_met_a_stop_string_is_cancelled(llm):
    before = llm.statistics()["generated_tokens"]
    (output,) = llm.generate("a", sampled(n=4, max_tokens=240, stop=list("abcdefghijklmnopqrstuvwxyz ")))
    assert {sequence.finish_reason for sequence in output.outputs} == {"stop"}
    assert llm.statistics()["generated_tokens"] - before < 4 * 240


def test_beams_are_continuations_best_first(beam_llm):
    params = BeamSearchParams(beam_width=4, max_tokens=12, ignore_eos=True)
    (from_text, from_ids) = beam_llm.beam_search(
        ["The river", {"prompt_token_ids": beam_llm.tokenizer.encode("The river")}], params
    )
    assert from_text == from_ids
    prompt_ids = beam_llm.tokenizer.encode("The river")
    scores = [beam.cum_logprob for beam in from_text.sequences]
    assert len(scores) == 4 and scores == sorted(scores, reverse=True)
    for beam in from_text.sequences:
        assert beam.tokens[: len(prompt_ids)] == prompt_ids
        assert len(beam.tokens) - len(prompt_ids) == len(beam.logprobs) == 12
        assert beam.cum_logprob == pytest.approx(sum(beam.logprobs), abs=1e-3)
        assert beam.text == beam_llm.tokenizer.decode(beam.tokens)
        assert beam.finish_reason == "length"


def test_the_best_beam_is_no_worse_than_the_greedy_continuation(beam_llm):
    (greedy,) = beam_llm.generate("a", SamplingParams(temperature=0, max_tokens=10, ignore_eos=True, logprobs=0))
    (beams,) = beam_llm.beam_search("a", BeamSearchParams(4, 10, ignore_eos=True, early_stopping="never"))
    assert beams.sequences[0].cum_logprob >= greedy.outputs[0].cumulative_logprob - 1e-3


def test_more_beams_than_the_engine_was_built_for_are_refused(beam_llm):
    with pytest.raises(InflightError, match="beam_width.*5.*4"):
        beam_llm.beam_search("a", BeamSearchParams(beam_width=5, max_tokens=4))


@pytest.mark.parametrize(
    "params, message",
    [
        ({"beam_width": 0}, "beam_width is 0; it must be at least 1"),
        ({"beam_width": "4"}, "beam_width is '4'; it must be an integer"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"length_penalty": "long"}, "length_penalty is 'long'; it must be a number"),
        ({"early_stopping": "always"}, "early_stopping is 'always'; it must be True, False or 'never'"),
        ({"ignore_eos": 1}, "ignore_eos is 1"),
    ],
)
def test_a_beam_search_that_makes_no_sense_is_refused(params, message):
    with pytest.raises(InflightError, match=message):
        BeamSearchParams(**{"beam_width": 2, "max_tokens": 4, **params})
