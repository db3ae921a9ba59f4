"""Added and special tokens, declared in each of the places where transformers finds them: the ids are transformers',
and what the checkpoint holds of them is in its tokenizer.json alone."""

import itertools
import json

import pytest
from sentencepiece_reference import model_proto, pieces_and_scores
from small_tokenizers import byte_level
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from inflight.checkpoint.huggingface.tokenizer import save_tokenizer
from inflight.errors import InflightError

TEXTS = [
    "The <|tool|> dog",
    "<|tool|>The dog<|tool|>",
    "The <|im_end|> dog <|extra|>  <|other|> <pad>",
    "The <|tool|>\n <image> dog",
    "no token at all",
]
VOCAB_SIZE = 1000


def byte_level_files(directory) -> int:
    byte_level().save(str(directory / "tokenizer.json"))
    return byte_level().get_vocab_size()


def vocabulary_files(directory) -> int:
    tokenizer = json.loads(byte_level().to_str())
    (directory / "vocab.json").write_text(json.dumps(tokenizer["model"]["vocab"]))
    merges = "\n".join(" ".join(merge) for merge in tokenizer["model"]["merges"])
    (directory / "merges.txt").write_text("#version: 0.2\n" + merges)
    return len(tokenizer["model"]["vocab"])


def sentencepiece_files(directory) -> int:
    (directory / "tokenizer.model").write_bytes(model_proto())
    return len(pieces_and_scores()[0])


FORMATS = {
    "tokenizer.json": (byte_level_files, "PreTrainedTokenizerFast"),
    "tokenizer.model": (sentencepiece_files, "LlamaTokenizer"),
    "vocab.json": (vocabulary_files, "Qwen2Tokenizer"),
}


def token(content, **options):
    return {"content": content, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False} | options


# Each way: files by name, given the first free id.
WAYS = {
    "nothing": lambda first: {},
    "added_tokens.json": lambda first: {"added_tokens.json": {"<|tool|>": first, "<|other|>": first + 1}},
    "added_tokens.json out of order": lambda first: {"added_tokens.json": {"<|tool|>": first + 1, "<|im_x|>": first}},
    "added_tokens.json and special_tokens_map.json": lambda first: {
        "added_tokens.json": {"<|other|>": first, "<|tool|>": first + 1},
        "special_tokens_map.json": {"eos_token": token("<|other|>")},
    },
    "special_tokens_map.json": lambda first: {"special_tokens_map.json": {"pad_token": "<pad>"}},
    "special_tokens_map.json with additional_special_tokens": lambda first: {
        "special_tokens_map.json": {"additional_special_tokens": ["<|tool|>", "<|extra|>"]}
    },
    "added_tokens_decoder": lambda first: {
        "tokenizer_config.json": {"added_tokens_decoder": {str(first): token("<|tool|>", special=True)}}
    },
    "added_tokens_decoder that strips": lambda first: {
        "tokenizer_config.json": {
            "added_tokens_decoder": {
                str(first): token("<|tool|>", special=True, rstrip=True),
                str(first + 1): token("<|other|>", special=False, lstrip=True, normalized=True),
            }
        }
    },
    "added_tokens_decoder before added_tokens.json": lambda first: {
        "tokenizer_config.json": {"added_tokens_decoder": {str(first): token("<|tool|>", special=True)}},
        "added_tokens.json": {"<|tool|>": first, "<|other|>": first + 1},
    },
    "pad_token": lambda first: {"tokenizer_config.json": {"pad_token": "<pad>"}},
    "pad_token as an object": lambda first: {
        "tokenizer_config.json": {"pad_token": token("<pad>", __type="AddedToken", lstrip=True)}
    },
    "additional_special_tokens": lambda first: {
        "tokenizer_config.json": {"additional_special_tokens": ["<|tool|>", "<|extra|>"]}
    },
    "extra_special_tokens": lambda first: {
        "tokenizer_config.json": {"extra_special_tokens": ["<|tool|>", "<|extra|>"]}
    },
    "extra_special_tokens by name": lambda first: {
        "tokenizer_config.json": {"extra_special_tokens": {"tool_token": "<|tool|>", "image_token": "<image>"}}
    },
    "a token of the model's own": lambda first: {"tokenizer_config.json": {"image_token": "<image>"}},
}


def write(directory, kind, way) -> None:
    files, tokenizer_class = FORMATS[kind]
    declared = WAYS[way](files(directory))
    model_type = "qwen2" if kind == "vocab.json" else "llama"
    (directory / "config.json").write_text(json.dumps({"model_type": model_type}))
    config = {"tokenizer_class": tokenizer_class} | declared.pop("tokenizer_config.json", {})
    for name, values in (declared | {"tokenizer_config.json": config}).items():
        (directory / name).write_text(json.dumps(values))


# Where tokenizer.model has control pieces, transformers forgets the declared ones; here they are tokens.
FORGOTTEN = ("tokenizer.model", "special_tokens_map.json with additional_special_tokens")


@pytest.mark.parametrize("kind, way", [case for case in itertools.product(FORMATS, WAYS) if case != FORGOTTEN])
def test_ids_are_those_of_transformers(kind, way, tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    write(source, kind, way)
    save_tokenizer(source, out, VOCAB_SIZE)
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    reference = AutoTokenizer.from_pretrained(source)
    for text in TEXTS:
        ids = reference.encode(text)
        assert tokenizer.encode(text).ids == ids
        for skips in (False, True):
            decoded = reference.decode(ids, skip_special_tokens=skips)
            assert tokenizer.decode(ids, skip_special_tokens=skips) == decoded


def test_a_chatml_fine_tune_s_turn_end_is_one_id(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    write(tmp_path, "tokenizer.json", "added_tokens.json")
    save_tokenizer(tmp_path, out, VOCAB_SIZE)
    assert Tokenizer.from_file(str(out / "tokenizer.json")).encode("The <|tool|> dog").ids == [264, 220, 301, 263]


def test_what_declares_nothing_new_is_copied_as_it_is(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    write(tmp_path, "tokenizer.json", "nothing")
    save_tokenizer(tmp_path, out, VOCAB_SIZE)
    assert (out / "tokenizer.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    "files, message",
    [
        (
            {"added_tokens.json": {"<|tool|>": 305}},
            "added_tokens.json: <|tool|> is 305; expected the id that '<|tool|>' has in the tokenizer (301)",
        ),
        ({"added_tokens.json": {"<|tool|>": "301"}}, "added_tokens.json: <|tool|> is '301'; expected an integer"),
        ({"added_tokens.json": ["<|tool|>"]}, "added_tokens.json: expected a JSON object, found list"),
        (
            {"tokenizer_config.json": {"added_tokens_decoder": {"x": {"content": "<|tool|>"}}}},
            "added_tokens_decoder: x is {'content': '<|tool|>'}; expected a token id as its key",
        ),
        (
            {"tokenizer_config.json": {"added_tokens_decoder": {"301": "<|tool|>"}}},
            "added_tokens_decoder: 301 is '<|tool|>'; expected a JSON object",
        ),
        ({"tokenizer_config.json": {"pad_token": 3}}, "Special token pad_token has to be either str or AddedToken"),
        ({"tokenizer_config.json": {"split_special_tokens": True}}, "split_special_tokens is true; expected false"),
        ({"special_tokens_map.json": "x"}, "transformers does not take"),
    ],
)
def test_refuses_by_name(files, message, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    write(tmp_path, "tokenizer.json", "nothing")
    for name, values in files.items():
        (tmp_path / name).write_text(json.dumps(values))
    with pytest.raises(InflightError) as error:
        save_tokenizer(tmp_path, out, VOCAB_SIZE)
    assert message in str(error.value) and str(tmp_path) in str(error.value) and str(out) not in str(error.value)


@pytest.mark.parametrize("size, refused", [(301, False), (300, False), (297, True)])
def test_only_added_tokens_may_lie_beyond_the_embedding(size, refused, tmp_path):
    """Vocabulary of 298 tokens and three added ones."""
    out = tmp_path / "out"
    out.mkdir()
    write(tmp_path, "tokenizer.json", "nothing")
    if refused:
        with pytest.raises(InflightError, match="token ids go up to 297, the model's vocabulary has 297"):
            save_tokenizer(tmp_path, out, size)
    else:
        save_tokenizer(tmp_path, out, size)
