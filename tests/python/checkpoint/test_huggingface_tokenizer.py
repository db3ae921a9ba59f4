"""A Hugging Face directory without tokenizer.json: the tokenizer is made from SentencePiece's tokenizer.model."""

import json
import struct

import pytest
from sentencepiece_reference import TEXTS, llama_cpp_sentencepiece, pieces_and_scores
from tokenizers import Tokenizer

from inflight.checkpoint.huggingface_tokenizer import save_tokenizer
from inflight.errors import InflightError

BPE, UNIGRAM = 2, 1
VOCAB_SIZE = 1000


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def message(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def flag(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def model_proto(kind=BPE, adds_space=True, removes_spaces=False) -> bytes:
    """sentencepiece_model.proto's ModelProto, written by hand."""
    tokens, scores, types = pieces_and_scores()
    pieces = b"".join(
        message(1, message(1, token.encode()) + b"\x15" + struct.pack("<f", score) + flag(3, piece_type))
        for token, score, piece_type in zip(tokens, scores, types, strict=True)
    )
    normalizer = message(1, b"identity") + flag(3, adds_space) + flag(4, removes_spaces)
    return pieces + message(2, flag(3, kind) + flag(4, len(tokens))) + message(3, normalizer)


@pytest.fixture
def convert(tmp_path):
    """convert(config, **model): the tokenizer made of a tokenizer.model and its tokenizer_config.json."""

    def make(config=None, data=None, **model):
        (tmp_path / "tokenizer.model").write_bytes(model_proto(**model) if data is None else data)
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config or {}))
        out = tmp_path / "out"
        out.mkdir()
        save_tokenizer(tmp_path, out, VOCAB_SIZE)
        return Tokenizer.from_file(str(out / "tokenizer.json"))

    return make


@pytest.mark.parametrize("adds_space", [True, False])
def test_ids_are_those_of_sentencepiece(adds_space, convert):
    tokenizer = convert(adds_space=adds_space)
    for text in TEXTS:
        if "<think>" not in text:
            ids = llama_cpp_sentencepiece(text, adds_space)
            assert tokenizer.encode(text).ids == [1, *ids]
            assert tokenizer.decode(ids) == text


def test_configuration_adds_tokens_and_says_what_surrounds_a_text(convert):
    first = len(pieces_and_scores()[0])
    added = {
        str(first + 1): {"content": "<|im_end|>", "special": True},
        str(first): {"content": "<tool>", "special": False},
        "0": {"content": "<unk>", "special": True},
    }
    config = {"added_tokens_decoder": added, "add_bos_token": False, "add_eos_token": True}
    tokenizer = convert(config | {"eos_token": {"content": "<|im_end|>"}})
    assert tokenizer.encode("<tool>").ids == [first, first + 1]
    assert tokenizer.decode([first, first + 1]) == "<tool>"


@pytest.mark.parametrize(
    "options, expected",
    [
        (dict(data=b"version https://git-lfs.github.com/spec/v1"), "tokenizer.model is not a SentencePiece model"),
        (dict(data=b""), "tokenizer.model is not a SentencePiece model: it has no pieces"),
        (dict(data=b"\x0a\x7f\x0a"), "tokenizer.model is not a SentencePiece model: it is truncated"),
        (dict(kind=UNIGRAM), "tokenizer.model is not a plain BPE model"),
        (dict(removes_spaces=True), "tokenizer.model is not a plain BPE model"),
        (dict(config={"bos_token": "<start>"}), "bos_token is '<start>'; expected a token of tokenizer.model"),
        (
            dict(config={"added_tokens_decoder": {"900": {"content": "<tool>"}}}),
            "added_tokens_decoder: 900 is {'content': '<tool>'}; expected the id that '<tool>' has",
        ),
        (dict(config={"added_tokens_decoder": {"900": {}}}), "expected an object with the token as its content"),
    ],
)
def test_refuses_by_name(options, expected, convert):
    with pytest.raises(InflightError) as error:
        convert(**options)
    assert expected in str(error.value)
