"""A Hugging Face directory without tokenizer.json: the tokenizer is made from SentencePiece's tokenizer.model."""

import json

import pytest
from sentencepiece_reference import TEXTS, UNIGRAM, llama_cpp_sentencepiece, model_proto, pieces_and_scores
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from inflight.checkpoint.huggingface.tokenizer import save_tokenizer
from inflight.errors import InflightError

VOCAB_SIZE = 1000


@pytest.fixture
def convert(tmp_path):
    """convert(config, **model): the tokenizer made of a tokenizer.model and its tokenizer_config.json."""

    def make(config=None, data=None, **model):
        (tmp_path / "tokenizer.model").write_bytes(model_proto(**model) if data is None else data)
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
        config = {"tokenizer_class": "LlamaTokenizer"} | (config or {})
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        out = tmp_path / "out"
        out.mkdir()
        save_tokenizer(tmp_path, out, VOCAB_SIZE)
        return Tokenizer.from_file(str(out / "tokenizer.json"))

    return make


@pytest.mark.parametrize("adds_space", [True, False])
def test_ids_are_those_of_sentencepiece(adds_space, convert):
    tokenizer = convert(dict(add_bos_token=True), adds_space=adds_space)
    for text in TEXTS:
        if "<think>" not in text and not (adds_space and text.startswith(" ")):  # see the next test
            ids = llama_cpp_sentencepiece(text, adds_space)
            assert tokenizer.encode(text).ids == [1, *ids]
            assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("legacy", [True, False, None])
@pytest.mark.parametrize("adds_bos", [True, False, None])
def test_ids_are_those_of_transformers(legacy, adds_bos, convert, tmp_path):
    """Which adds no space to a text that begins with one."""
    config = {"legacy": legacy, "add_bos_token": adds_bos}
    tokenizer = convert({name: value for name, value in config.items() if value is not None})
    reference = AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        ids = reference.encode(text)
        assert tokenizer.encode(text).ids == ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == reference.decode(ids)


def test_configuration_adds_tokens_and_says_what_surrounds_a_text(convert):
    first = len(pieces_and_scores()[0])
    added = {
        str(first + 1): {"content": "<|im_end|>", "special": True},
        str(first): {"content": "<tool>", "special": False},
        "0": {"content": "<unk>", "special": True},
    }
    config = {"added_tokens_decoder": added, "add_bos_token": False, "add_eos_token": True}
    tokenizer = convert(config | {"eos_token": {"__type": "AddedToken", "content": "<|im_end|>"}})
    assert tokenizer.encode("<tool>").ids == [first, first + 1]
    assert tokenizer.decode([first, first + 1]) == "<tool>"


@pytest.mark.parametrize(
    "options, expected",
    [
        (dict(data=b"version https://git-lfs.github.com/spec/v1"), "tokenizer.model is not a SentencePiece model"),
        (dict(data=b""), "tokenizer.model is not a SentencePiece model: it has no pieces"),
        (dict(data=b"\x0a\x7f\x0a"), "tokenizer.model is not a SentencePiece model: it is truncated"),
        (dict(data=b"\x08\x01"), "tokenizer.model is not a SentencePiece model: a number stands in the place of a"),
        (dict(data=b"\x0a\x02\x08\x01"), "is not a SentencePiece model: field 1 of a message is a number"),
        (dict(kind=UNIGRAM), "tokenizer.model is not a plain BPE model"),
        (dict(removes_spaces=True), "tokenizer.model is not a plain BPE model"),
        (
            dict(config={"added_tokens_decoder": {"900": {"content": "<tool>"}}}),
            "added_tokens_decoder: 900 is {'content': '<tool>'}; expected the id that '<tool>' has",
        ),
        (dict(config={"added_tokens_decoder": {"900": {}}}), "added_tokens_decoder: 900: content is missing"),
    ],
)
def test_refuses_by_name(options, expected, convert):
    with pytest.raises(InflightError) as error:
        convert(**options)
    assert expected in str(error.value)
