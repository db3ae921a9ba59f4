"""Texts of one response."""

import numpy as np
import pytest
from small_tokenizers import byte_level, save

from inflight.text import Tokenizer
from inflight.text.postprocessor import Postprocessor


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer(save(byte_level(), tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture(scope="module")
def postprocess(tokenizer):
    return Postprocessor(tokenizer.detokenizer())


def tensors(*rows):
    """TOKENS_BATCH [1, beams, n] and SEQUENCE_LENGTH [1, beams]."""
    width = max(map(len, rows))
    tokens = np.zeros((1, len(rows), width), np.int32)
    for index, row in enumerate(rows):
        tokens[0, index, : len(row)] = row
    return tokens, np.array([[len(row) for row in rows]], np.int32)


def test_beams_have_a_text_each_and_padding_none(postprocess, tokenizer):
    texts = postprocess(*tensors(tokenizer.encode("quick"), tokenizer.encode("a 你")))
    assert texts.tolist() == [b"quick", "a 你".encode()]


def test_bytes_at_the_end_are_cut_off(postprocess, tokenizer):
    rows = tensors(tokenizer.encode("quick 你好"), tokenizer.encode("a 你"))
    assert postprocess(*rows, num_cut_bytes=np.array([[6, 0]])).tolist() == [b"quick ", "a 你".encode()]


def test_a_response_without_tokens_is_empty(postprocess):
    assert postprocess(*tensors([])).tolist() == [b""]


def test_without_a_batch_dimension(postprocess, tokenizer):
    tokens, lengths = tensors(tokenizer.encode("dog"))
    assert postprocess(tokens[0], lengths[0]).tolist() == [b"dog"]


def test_a_stream_goes_on_where_it_stopped(postprocess, tokenizer):
    ids = tokenizer.encode("a你b")
    texts = []
    for index, token in enumerate(ids):
        preceding = ([-1] * 16 + ids[:index])[-16:]
        finished = index == len(ids) - 1
        texts += postprocess(*tensors([token]), np.array([preceding], np.int32), np.array([[finished]])).flat
    assert b"".join(texts) == "a你b".encode()
    assert all(text.decode() for text in texts if text), "no piece holds half a character"


def test_without_lengths_all_tokens_count(postprocess, tokenizer):
    tokens, _ = tensors(tokenizer.encode("dog"))
    assert postprocess(tokens).tolist() == [b"dog"]


@pytest.mark.parametrize("length", [-3, 100])
def test_a_length_beyond_the_tokens_is_no_error(postprocess, tokenizer, length):
    tokens, _ = tensors(tokenizer.encode("dog"))
    assert postprocess(tokens, np.array([[length]], np.int32)).item() in (b"", b"dog")


def test_ids_outside_the_vocabulary_are_no_text(postprocess):
    assert postprocess(*tensors([-5, 2**31 - 1])).item() == b""
