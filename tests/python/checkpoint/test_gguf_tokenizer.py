"""The tokenizer in a GGUF file → tokenizer.json: the ids of the model's own tokenizer and of llama.cpp."""

import json
from functools import cache

import gguf
import pytest
from sentencepiece_reference import CORPUS, TEXTS, llama_cpp_sentencepiece, pieces_and_scores
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer

from inflight.checkpoint.gguf.file import GgufFile
from inflight.checkpoint.gguf.pretokenizers import FLAVORS
from inflight.checkpoint.gguf.tokenizer import TokenizerMetadata, save_tokenizer
from inflight.errors import InflightError

SPECIAL = ["<|im_start|>", "<|im_end|>"]
USER_DEFINED = ["<think>"]

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_SPLIT = LLAMA3_SPLIT.replace("{1,3}", "")


def split_by(expression):
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(expression), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


# The pre-tokenizers of the original tokenizer.json files.
ORIGINALS = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "llama-bpe": split_by(LLAMA3_SPLIT),
    "qwen2": split_by(QWEN2_SPLIT),
}


@cache
def byte_level(pre: str) -> Tokenizer:
    """A trained tokenizer as the original tokenizer.json would have it."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    tokenizer.pre_tokenizer = ORIGINALS[pre]
    tokenizer.decoder = decoders.ByteLevel()
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    # merges across digits and words, so that only the right split keeps them apart
    untamed = Tokenizer(models.BPE())
    untamed.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    untamed.train_from_iterator(CORPUS, trainer)
    model = json.loads(untamed.to_str())["model"]
    tokenizer.model = models.BPE(
        vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]], ignore_merges=pre == "llama-bpe"
    )
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens(USER_DEFINED)
    return tokenizer


def ordered_tokens(tokenizer: Tokenizer) -> list[str]:
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary, key=vocabulary.get)


def write_gguf(path, tokens, edit) -> GgufFile:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_token_list(tokens)
    edit(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return GgufFile(path)


def write_byte_level(path, tokenizer: Tokenizer, pre: str | None, edit=lambda writer: None) -> GgufFile:
    tokens = ordered_tokens(tokenizer)

    def add(writer):
        writer.add_tokenizer_model("gpt2")
        if pre is not None:
            writer.add_tokenizer_pre(pre)
        writer.add_token_types([3 if token in SPECIAL else 4 if token in USER_DEFINED else 1 for token in tokens])
        merges = json.loads(tokenizer.to_str())["model"]["merges"]
        writer.add_token_merges([" ".join(merge) for merge in merges])
        writer.add_bos_token_id(tokens.index("<|im_start|>"))
        writer.add_eos_token_id(tokens.index("<|im_end|>"))
        edit(writer)

    return write_gguf(path, tokens, add)


def load(file: GgufFile, directory) -> Tokenizer:
    save_tokenizer(TokenizerMetadata(file), directory)
    return Tokenizer.from_file(str(directory / "tokenizer.json"))


@pytest.mark.parametrize("pre", ORIGINALS)
def test_byte_level_ids_are_those_of_the_original_tokenizer(pre, tmp_path):
    original = byte_level(pre)
    file = write_byte_level(tmp_path / "model.gguf", original, pre, lambda writer: writer.add_add_bos_token(False))
    tokenizer = load(file, tmp_path)
    for text in TEXTS:
        ids = original.encode(text).ids
        assert tokenizer.encode(text).ids == ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == original.decode(ids, skip_special_tokens=False)
        assert tokenizer.decode(ids) == original.decode(ids)


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "qwen2"])
def test_byte_level_ids_are_those_of_transformers(pre, tmp_path):
    """But not for smollm: transformers knows no split for it and would merge digits, which SmolLM2 never does."""
    file = write_byte_level(
        tmp_path / "model.gguf", byte_level(pre), pre, lambda writer: writer.add_add_bos_token(False)
    )
    tokenizer = load(file, tmp_path)
    reference = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    for text in TEXTS:
        if pre == "llama-bpe" and any(token.isdigit() for token in text.split()):
            continue  # transformers leaves out ignore_merges
        assert tokenizer.encode(text).ids == reference(text)["input_ids"]


def test_a_whole_piece_that_is_a_token_wins_over_merges_in_llama3(tmp_path):
    """Llama 3's tokenizer.json says ignore_merges, and so does llama.cpp."""
    original = Tokenizer.from_str(byte_level("llama-bpe").to_str())
    model = json.loads(original.to_str())["model"]
    vocabulary = model["vocab"] | {"xyzzy": len(ordered_tokens(original))}
    original.model = models.BPE(
        vocab=vocabulary, merges=[tuple(merge) for merge in model["merges"]], ignore_merges=True
    )
    tokenizer = load(write_byte_level(tmp_path / "model.gguf", original, "llama-bpe"), tmp_path)
    assert tokenizer.encode("xyzzy", add_special_tokens=False).tokens == ["xyzzy"]


@pytest.mark.parametrize("pre, adds", [("llama-bpe", True), ("qwen2", False), ("gpt-2", False)])
@pytest.mark.parametrize("said", [None, False, True])
def test_start_token_is_added_as_the_file_says_or_else_as_its_kind_does(pre, adds, said, tmp_path):
    edit = (lambda writer: None) if said is None else (lambda writer: writer.add_add_bos_token(said))
    tokenizer = load(write_byte_level(tmp_path / "model.gguf", byte_level(pre), pre, edit), tmp_path)
    adds = adds if said is None else said
    assert (tokenizer.encode("hi").tokens[0] == "<|im_start|>") == adds
    assert tokenizer.encode("hi", add_special_tokens=False).tokens[0] != "<|im_start|>"


def test_end_token_is_added_when_the_file_says_so(tmp_path):
    file = write_byte_level(
        tmp_path / "model.gguf", byte_level("qwen2"), "qwen2", lambda writer: writer.add_add_eos_token(True)
    )
    assert load(file, tmp_path).encode("hi").tokens[-1] == "<|im_end|>"


def test_default_pre_tokenizer_splits_as_llama_cpp(tmp_path):
    tokenizer = load(write_byte_level(tmp_path / "model.gguf", byte_level("gpt-2"), None), tmp_path)
    pieces = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str("It's 12345!? a=b")]
    assert pieces == ["It", "'", "s", "Ġ", "123", "45", "!?", "Ġa", "=", "b"]


@pytest.mark.parametrize("pre", FLAVORS)
def test_every_pre_tokenizer_keeps_every_byte(pre, tmp_path):
    tokenizer = load(write_byte_level(tmp_path / "model.gguf", byte_level("gpt-2"), pre), tmp_path)
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_configuration_and_chat_template(tmp_path):
    def edit(writer):
        writer.add_chat_template("{{ messages }}")
        writer.add_pad_token_id(0)

    file = write_byte_level(tmp_path / "model.gguf", byte_level("qwen2"), "qwen2", edit)
    save_tokenizer(TokenizerMetadata(file), tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["bos_token"] == "<|im_start|>" and config["eos_token"] == "<|im_end|>"
    assert config["chat_template"] == "{{ messages }}" and config["pad_token"] == "!"
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.eos_token == "<|im_end|>" and loaded.chat_template == "{{ messages }}"
    assert loaded("hi 12")["input_ids"] == Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("hi 12").ids


# SentencePiece


def write_sentencepiece(path, edit=lambda writer: None) -> GgufFile:
    tokens, scores, kinds = pieces_and_scores()

    def add(writer):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores(scores)
        writer.add_token_types(kinds)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        edit(writer)

    return write_gguf(path, tokens, add)


@pytest.mark.parametrize("adds_space", [True, False])
def test_sentencepiece_ids_are_those_of_llama_cpp(adds_space, tmp_path):
    file = write_sentencepiece(tmp_path / "model.gguf", lambda writer: writer.add_add_space_prefix(adds_space))
    tokenizer = load(file, tmp_path)
    for text in TEXTS:
        if "<think>" in text:
            continue
        ids = llama_cpp_sentencepiece(text, adds_space)
        assert tokenizer.encode(text, add_special_tokens=False).ids == ids
        assert tokenizer.encode(text).ids == [1, *ids]
        assert tokenizer.decode(ids) == text


def test_sentencepiece_adds_a_space_to_every_stretch_between_added_tokens(tmp_path):
    tokenizer = load(write_sentencepiece(tmp_path / "model.gguf"), tmp_path)
    think = pieces_and_scores()[0].index("<think>")
    expected = [*llama_cpp_sentencepiece("the", True), think, *llama_cpp_sentencepiece("user", True), 2]
    assert tokenizer.encode("the<think>user</s>", add_special_tokens=False).ids == expected


def test_sentencepiece_ids_are_those_of_transformers_where_it_is_right(tmp_path):
    """transformers puts the space before a text only where none is, so texts that begin with one differ."""
    tokenizer = load(write_sentencepiece(tmp_path / "model.gguf"), tmp_path)
    reference = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    for text in TEXTS:
        if not text.startswith(" ") and "<" not in text:
            assert tokenizer.encode(text).ids == reference(text)["input_ids"]


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda w: w.add_tokenizer_pre("klingon"), "tokenizer.ggml.pre is 'klingon'; expected one of "),
        (lambda w: w.kv_data[0].pop("tokenizer.ggml.merges"), "tokenizer.ggml.merges is missing"),
        (lambda w: w.add_eos_token_id(100000), "tokenizer.ggml.eos_token_id is 100000; expected a token id below"),
        (lambda w: w.add_token_types([1, 1]), "tokenizer.ggml.token_type is array([1, 1], dtype=int32); expected "),
        (lambda w: w.add_token_merges(["q w", "zz yy"]), "tokenizer.ggml.merges do not fit the tokens"),
        (
            lambda w: w.add_string("tokenizer.ggml.add_bos_token", "yes"),
            "add_bos_token is 'yes'; expected true or false",
        ),
    ],
)
def test_refuses_by_name(edit, message, tmp_path):
    original = byte_level("qwen2")
    tokens = ordered_tokens(original)
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_token_list(tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_merges([" ".join(merge) for merge in json.loads(original.to_str())["model"]["merges"]])
    edit(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(InflightError) as error:
        save_tokenizer(TokenizerMetadata(GgufFile(path)), tmp_path)
    assert message in str(error.value) and str(path) in str(error.value)


def test_smollm2(smollm2_gguf, tmp_path):
    """Ids of the tokenizer.json that HuggingFaceTB/SmolLM2-135M-Instruct publishes."""
    tokenizer = load(GgufFile(smollm2_gguf), tmp_path)
    published = {
        "Hello, we can use": [19556, 28, 392, 416, 722],
        "The capital of France is": [504, 3575, 282, 4649, 314],
        "Hello world! 123": [19556, 905, 17, 216, 33, 34, 35],
        "Café déjà vu.": [51, 1939, 2756, 32564, 90, 16739, 386, 101, 30],
        "  multiple   spaces": [216, 2701, 256, 5600],
    }
    for text, ids in published.items():
        assert tokenizer.encode(text).ids == ids
        assert tokenizer.decode(ids) == text
    assert tokenizer.encode("<|im_start|>user\n").ids[0] == 1
