"""A stream's pieces join to the whole text, wherever the tokens are split."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders

from inflight.errors import InflightError
from inflight.text import PRECEDING_TOKENS, TextStream, Tokenizer

KINDS = ["byte_level", "sentencepiece", "metaspace"]
TEXTS = [
    "Hello, world",
    "  two leading spaces, a\ttab and\n\nnew lines  ",
    "机器学习是人工智能的一个分支。",
    "👩‍👩‍👧‍👦 and 🎉, then é as two code points: e\u0301",
    "日本語と한국어 العربية עברית",
    "",
]


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request, tokenizer_dirs):
    return Tokenizer(tokenizer_dirs[request.param])


@pytest.fixture(scope="module")
def split_tokenizers(tokenizer_dirs):
    return [Tokenizer(tokenizer_dirs[kind]) for kind in KINDS]


def splits(draw, tokens):
    """The tokens in groups of any size, empty ones included."""
    cuts = sorted(draw(st.lists(st.integers(0, len(tokens)), max_size=len(tokens) + 2)))
    return [tokens[start:end] for start, end in pairwise([0, *cuts, len(tokens)])]


@pytest.mark.parametrize("text", TEXTS)
def test_decodes_as_the_tokenizers_library_does(tokenizer, text):
    reference = FastTokenizer.from_file(str(tokenizer.directory / "tokenizer.json"))
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == reference.decode(ids)


@given(text=st.text(max_size=40))
def test_decodes_any_text_as_the_tokenizers_library_does(split_tokenizers, text):
    for tokenizer in split_tokenizers[:2]:  # Metaspace has no byte tokens: it decodes them by name
        reference = FastTokenizer.from_file(str(tokenizer.directory / "tokenizer.json"))
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == reference.decode(ids)


@given(data=st.data())
def test_any_split_of_any_tokens_streams_the_same_text(split_tokenizers, data):
    tokenizer = data.draw(st.sampled_from(split_tokenizers))
    special = [token for token in range(tokenizer.vocab_size) if not tokenizer.decode([token])]
    token = st.one_of(st.integers(-1, tokenizer.vocab_size + 3), st.sampled_from(special))
    tokens = data.draw(st.lists(token, max_size=60))
    groups = splits(data.draw, tokens)
    for skip_special_tokens in (True, False):
        stream = TextStream(tokenizer.detokenizer(skip_special_tokens))
        pieces = [stream.push(group) for group in groups] + [stream.push([], finished=True)]
        assert "".join(pieces) == tokenizer.decode(tokens, skip_special_tokens)


@given(data=st.data())
def test_a_stateless_window_is_enough(split_tokenizers, data):
    tokenizer = data.draw(st.sampled_from(split_tokenizers))
    tokens = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=60))
    detokenizer = tokenizer.detokenizer()
    pieces, done = [], 0
    for group in splits(data.draw, tokens):
        pieces.append(detokenizer.decode(group, tokens[:done][-PRECEDING_TOKENS:], finished=False))
        done += len(group)
    pieces.append(detokenizer.decode([], tokens[-PRECEDING_TOKENS:], finished=True))
    assert "".join(pieces) == tokenizer.decode(tokens)


def test_an_incomplete_character_is_held_back_and_flushed_at_the_end(tokenizer_dirs):
    tokenizer = Tokenizer(tokenizer_dirs["byte_level"])
    stream = TextStream(tokenizer.detokenizer())
    first, second, third = tokenizer.encode("你")
    assert [stream.push([first]), stream.push([second]), stream.push([third])] == ["", "", "你"]
    assert stream.push([first, second]) == ""
    assert stream.push([], finished=True) == "\ufffd"


def test_an_incomplete_tail_does_not_garble_what_comes_before(tokenizer_dirs):
    tokenizer = Tokenizer(tokenizer_dirs["sentencepiece"])
    ids = tokenizer.encode("é🎉")
    assert tokenizer.decode(ids[:-1]) == "é\ufffd"


def test_special_tokens_are_text_only_where_they_are_not_skipped(tokenizer_dirs):
    tokenizer = Tokenizer(tokenizer_dirs["byte_level"])
    ids = tokenizer.encode("<|im_start|>Hi<think>there<|im_end|>")
    assert tokenizer.decode(ids) == "Hi<think>there"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "<|im_start|>Hi<think>there<|im_end|>"


def test_only_the_first_leading_space_of_a_sentencepiece_text_is_dropped(tokenizer_dirs):
    tokenizer = Tokenizer(tokenizer_dirs["sentencepiece"])
    stream = TextStream(tokenizer.detokenizer())
    words = [tokenizer.encode("</s>"), tokenizer.encode("The"), tokenizer.encode("dog")]
    assert [stream.push(ids[-1:]) for ids in words] == ["", "The", " dog"]


def test_an_added_token_of_a_byte_level_vocabulary_is_plain_text(tmp_path, tokenizer_dirs):
    fast = FastTokenizer.from_file(str(tokenizer_dirs["byte_level"] / "tokenizer.json"))
    fast.add_tokens(["café"])
    fast.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer(tmp_path)
    assert tokenizer.decode(tokenizer.encode("café")) == "café"


@pytest.mark.parametrize("decoder", [decoders.WordPiece(), decoders.Strip(" ", 0, 1), decoders.BPEDecoder(), None])
def test_a_decoder_that_cannot_be_streamed_is_refused_at_load(tmp_path, tokenizer_dirs, decoder):
    content = json.loads((tokenizer_dirs["byte_level"] / "tokenizer.json").read_text())
    content["decoder"] = json.loads(decoder.__getstate__()) if decoder else None
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(InflightError, match="cannot stream text with the decoder"):
        Tokenizer(tmp_path)
