"""The special tokens of GGUF metadata: as llama.cpp finds them."""

import gguf_models
import pytest
from checkpoint_weights import convert
from tokenizers import Tokenizer


@pytest.mark.parametrize("token_type", [1, 3, 4], ids=["normal", "control", "user-defined"])
def test_tokens_that_end_a_turn_end_generation_whatever_their_type(token_type, model, tmp_path):
    """As in llama.cpp, which makes them control tokens: they are one id, and no text."""
    tokens = gguf_models.TOKENS + ["<|im_end|>", "<|eot_id|>"]

    def edit(writer):
        writer.add_eot_token_id(5)
        writer.kv_data[0]["tokenizer.ggml.token_type"].value = [2, 3, 3, *[6] * 256, token_type, token_type, *[5] * 59]

    config, _ = convert(gguf_models.write(tmp_path / "model.gguf", model, edit=edit, tokens=tokens), tmp_path)
    assert config.end_ids == [2, 5, 259, 260]
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer" / "tokenizer.json"))
    ids = tokenizer.encode("<|im_end|>", add_special_tokens=False).ids
    assert ids == [259] and tokenizer.decode(ids) == ""


NONE = 2**32 - 1  # llama.cpp's, as an unsigned integer


@pytest.mark.parametrize(
    "key, value, expected",
    [
        ("padding_token_id", NONE, dict(pad_id=2)),
        ("padding_token_id", 320, dict(pad_id=2)),
        ("padding_token_id", 7, dict(pad_id=7)),
        ("eos_token_id", None, dict(end_ids=[2], pad_id=2)),
        ("eos_token_id", NONE, dict(end_ids=[2], pad_id=2)),
        ("bos_token_id", None, dict(bos_id=1)),
        ("bos_token_id", NONE, dict(bos_id=1)),
        ("eot_token_id", NONE, dict(end_ids=[2])),
    ],
)
def test_special_ids_that_are_absent_or_none(key, value, expected, model, tmp_path):
    """bos and eos then are SentencePiece's own, as in llama.cpp."""

    def edit(writer):
        writer.kv_data[0].pop(f"tokenizer.ggml.{key}", None)
        if value is not None:
            writer.add_uint32(f"tokenizer.ggml.{key}", value)

    config, _ = convert(gguf_models.write(tmp_path / "model.gguf", model, edit=edit), tmp_path)
    assert {name: getattr(config, name) for name in expected} == expected
