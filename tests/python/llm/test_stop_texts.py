"""Stop words as people mean them: the text ends where it is, whatever tokens it is made of.

The reference is a search through the whole text of a generation that nothing stops.
"""

import asyncio
import shutil

import numpy as np
import pytest
import small_tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_requests import run

from inflight import _native
from inflight.llm import LLM, SamplingParams, StructuredOutputsParams
from inflight.text import TextStream, Tokenizer, cut
from inflight.text.postprocessor import Postprocessor
from inflight.text.spellings import spellings

PROMPT = "The quick brown fox: 机器"
LENGTH = 48


@pytest.fixture(scope="module", params=small_tokenizers.KINDS)
def directory(request, engine_dir, tmp_path_factory):
    """The engine with another tokenizer. Its weights are random: characters are cut anywhere, bytes are of none."""
    copy = shutil.copytree(engine_dir, tmp_path_factory.mktemp(request.param) / "engine")
    shutil.rmtree(copy / "tokenizer")
    small_tokenizers.save(small_tokenizers.KINDS[request.param](), copy / "tokenizer")
    return copy


@pytest.fixture(scope="module")
def llm(directory):
    with LLM(directory, num_threads=1) as llm:
        yield llm


@pytest.fixture(scope="module")
def unstopped(llm):
    """The tokens that a seed gives."""
    sampling = [sampled(seed) for seed in range(6)]
    return [output.outputs[0].token_ids for output in llm.generate([PROMPT] * len(sampling), sampling)]


def sampled(seed, **options):
    return SamplingParams(temperature=1.2, seed=seed, max_tokens=LENGTH, ignore_eos=True, **options)


def text_after(tokenizer, tokens, skip_special_tokens, finished):
    return TextStream(tokenizer.detokenizer(skip_special_tokens)).push(tokens, finished)


def stopped(tokenizer, tokens, stops, include=False, skip_special_tokens=True, min_tokens=0):
    """(text, number of tokens, stop) of the same generation, stopped."""

    def text_of(count):
        return text_after(tokenizer, tokens[:count], skip_special_tokens, finished=count == len(tokens))

    ignored = len(text_after(tokenizer, tokens[:min_tokens], skip_special_tokens, finished=False))
    for count in range(min_tokens + 1, len(tokens) + 1):
        text = text_of(count)
        ends = [(at + len(stop), at, stop) for stop in stops if (at := text.find(stop, ignored)) >= 0]
        if ends:
            end, begin, stop = min(ends)
            return text[: end if include else begin], count, stop
    return text_of(len(tokens)), len(tokens), None


@st.composite
def stop_texts(draw, text):
    """Pieces of the text, cut at any character; and some that are not in it."""
    begin = draw(st.integers(0, len(text) - 1))
    piece = text[begin : begin + draw(st.integers(1, 12))]
    others = draw(st.lists(st.sampled_from([piece[:-1] + "☃", "never", piece[1:], piece * 2]), max_size=3))
    return [stop for stop in [piece, *others] if stop]


EXAMPLES = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@EXAMPLES
@given(data=st.data())
def test_the_text_ends_at_the_first_stop_text(llm, unstopped, data):
    seed = data.draw(st.integers(0, len(unstopped) - 1))
    tokens = unstopped[seed]
    options = dict(skip_special_tokens=data.draw(st.booleans()), min_tokens=data.draw(st.sampled_from([0, 0, 5, 30])))
    stops = data.draw(stop_texts(text_after(llm.tokenizer, tokens, options["skip_special_tokens"], finished=True)))
    include = data.draw(st.booleans())
    expected = stopped(llm.tokenizer, tokens, stops, include, **options)
    sampling = sampled(seed, stop=stops, include_stop_str_in_output=include, **options)

    (output,) = llm.generate(PROMPT, sampling)
    (whole,) = output.outputs
    assert (whole.text, len(whole.token_ids), whole.stop_reason) == expected
    assert whole.token_ids == tokens[: len(whole.token_ids)]
    assert whole.finish_reason == ("length" if expected[2] is None else "stop")

    async def stream():
        return [output.outputs[0] async for output in llm.stream(PROMPT, sampling)]

    pieces = asyncio.run(stream())
    assert "".join(piece.text for piece in pieces) == expected[0]
    assert [token for piece in pieces for token in piece.token_ids] == whole.token_ids
    assert (pieces[-1].finish_reason, pieces[-1].stop_reason) == (whole.finish_reason, whole.stop_reason)


@pytest.fixture(scope="module")
def manager(directory):
    """With drafts, of the model itself, so that a step brings several tokens."""
    with _native.BatchManager(
        directory,
        num_threads=1,
        tokenizer_dir=directory / "tokenizer",
        draft_engine_dir=directory,
        num_draft_tokens=3,
    ) as manager:
        yield manager
        assert manager.statistics()["accepted_draft_tokens"] > 0


@EXAMPLES
@given(data=st.data())
def test_a_stateless_postprocessor_delivers_the_same_text(manager, directory, data):
    """As the Triton models do: each response by itself, with the ids before it."""
    tokenizer = Tokenizer(directory / "tokenizer")
    prompt = tokenizer.encode(PROMPT + PROMPT)
    greedy = responses_of(manager, prompt, stop_texts=[])
    tokens = [token for response in greedy for token in response.tokens]
    stops = data.draw(stop_texts(tokenizer.decode(tokens)))
    include = data.draw(st.booleans())
    expected, count, _ = stopped(tokenizer, tokens, stops, include)
    for streaming in (False, True):
        responses = responses_of(
            manager, prompt, stop_texts=stops, include_stop_str_in_output=include, streaming=streaming
        )
        assert [token for response in responses for token in response.tokens] == tokens[:count]
        assert "".join(postprocessed(tokenizer, response) for response in responses) == expected


def test_beams_end_at_stop_texts(directory):
    tokenizer = Tokenizer(directory / "tokenizer")
    prompt = tokenizer.encode(PROMPT)
    with _native.BatchManager(directory, num_threads=1, tokenizer_dir=directory / "tokenizer") as manager:
        options = dict(beam_width=3, num_return_sequences=3, end_ids=[-1], early_stopping="never")
        (whole,) = run(manager, prompt, 24, **options)
        text = tokenizer.decode(whole.beams[0].tokens)
        stop = text[len(text) // 2 :][:2]
        for include in (False, True):
            (response,) = run(manager, prompt, 24, stop_texts=[stop], include_stop_str_in_output=include, **options)
            ended = [beam for beam in response.beams if beam.finish_reason == "stop_words"]
            assert ended
            for beam in response.beams:
                reference = stopped(tokenizer, beam.tokens, [stop], include)
                text = cut(tokenizer.decode(beam.tokens), beam.num_cut_bytes)
                assert (text, len(beam.tokens)) == reference[:2]
                assert (reference[2] is not None) == (beam.finish_reason == "stop_words")


def responses_of(manager, prompt, **options):
    return run(manager, prompt, LENGTH, end_ids=[-1], **options)


def postprocessed(tokenizer, response):
    preceding = ([-1] * 16 + response.preceding_tokens)[-16:]
    (text,) = Postprocessor(tokenizer.detokenizer())(
        np.array([response.tokens], np.int32),
        np.array([len(response.tokens)], np.int32),
        np.array(preceding, np.int32),
        np.array([response.is_sequence_final]),
        np.array([response.num_cut_bytes], np.int32),
    )
    return text.decode()


def test_bad_words_are_banned_as_they_are_spelled_after_a_space_and_inside_of_a_word(llm, unstopped):
    """Of a SentencePiece vocabulary, a word by itself is another token than the same letters inside of a word."""
    for seed, tokens in enumerate(unstopped):
        word = next(
            text
            for token in tokens[5:]
            if (text := llm.tokenizer.decode([token]).strip()) and [token] in spellings(text, llm.tokenizer)
        )
        banned = spellings(word, llm.tokenizer)
        (output,) = llm.generate(PROMPT, sampled(seed, bad_words=[word]))
        generated = output.outputs[0].token_ids
        windows = [generated[at : at + len(ids)] for ids in banned for at in range(len(generated))]
        assert not any(ids in windows for ids in banned)


def test_a_guided_text_ends_at_a_stop_text(llm):
    guide = StructuredOutputsParams(regex="[a-z ]{30}")
    (whole,) = llm.generate(PROMPT, sampled(0, structured_outputs=guide))
    text = whole.outputs[0].text
    stop = text[10:13]
    (output,) = llm.generate(PROMPT, sampled(0, structured_outputs=guide, stop=stop, include_stop_str_in_output=True))
    assert output.outputs[0].text == text[: text.index(stop) + 3]
    assert (output.outputs[0].finish_reason, output.outputs[0].stop_reason) == ("stop", stop)
