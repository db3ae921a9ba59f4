"""The tokenizer in a GGUF file's metadata → tokenizer.json and tokenizer_config.json.

Two kinds: "gpt2" is byte-level BPE with merges; "llama" is SentencePiece BPE, where the scores of the
pieces stand for merges. Semantics are llama.cpp's (llama-vocab.cpp) and the original tokenizers'.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models

from inflight.checkpoint.gguf.file import GgufFile
from inflight.checkpoint.gguf.pretokenizers import FLAVORS
from inflight.checkpoint.gguf.special_tokens import PREFIX, SpecialTokens
from inflight.checkpoint.sentencepiece.bpe import (
    PieceType,
    add_typed_tokens,
    build_sentencepiece_bpe,
    start_and_end,
)
from inflight.fields import Fields
from inflight.text.tokenizer_file import library_errors

_LONGEST_TOKEN = 4096  # characters; a damaged length must not cost a minute of cutting it up


def save_tokenizer(metadata: "TokenizerMetadata", directory: Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json into `directory`.

    Raises InflightError naming the file and the key where tokens and merges do not fit.
    """
    tokenizer = metadata.build()
    tokenizer.save(str(directory / "tokenizer.json"))
    text = json.dumps(metadata.config(), indent=2, ensure_ascii=False)
    (directory / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


class TokenizerMetadata:
    """The `tokenizer.*` keys of a GGUF file.

    Raises InflightError naming the file and the key for an unknown kind of tokenizer or malformed metadata.
    """

    def __init__(self, file: GgufFile):
        self._fields = Fields(file.metadata, str(file.path), PREFIX)
        self._template = Fields(file.metadata, str(file.path)).text("tokenizer.chat_template", default=None)
        self.kind = self._fields.choice("model", ("gpt2", "llama"))  # byte-level and SentencePiece BPE
        self.tokens = self._fields.texts("tokens")
        if any(len(token) > _LONGEST_TOKEN for token in self.tokens):
            self._fields.fail("tokens", f"tokens of at most {_LONGEST_TOKEN} characters")
        self.token_types = [int(PieceType.NORMAL)] * len(self.tokens)
        if "token_type" in self._fields:
            self.token_types = self._fields.numbers("token_type", len(self.tokens)).tolist()
        self.vocabulary = {token or f"[EMPTY_{i}]": i for i, token in enumerate(self.tokens)}
        if len(self.vocabulary) != len(self.tokens):
            self._fields.fail("tokens", "every token once")
        self.special = SpecialTokens(self._fields, self.tokens, self.token_types)
        self.flavor: Any = None  # BpeFlavor of a byte-level one
        if self.kind == "gpt2":
            self.flavor = FLAVORS[self._fields.choice("pre", sorted(FLAVORS), default="default")]
        # llama.cpp's defaults: SentencePiece models add bos, byte-level ones only if their kind does
        adds_bos = self.kind == "llama" or self.flavor.adds_bos
        self.adds_bos = self._fields.boolean("add_bos_token", default=adds_bos)
        self.adds_eos = self._fields.boolean("add_eos_token", default=False)
        self.bos, self.eos = self._token("bos_token_id"), self._token("eos_token_id")

    def build(self) -> Tokenizer:
        with library_errors(f"{self._fields.origin}: tokenizer.ggml.merges do not fit the tokens"):
            tokenizer = self._byte_level_bpe() if self.kind == "gpt2" else self._sentencepiece_bpe()
        add_typed_tokens(tokenizer, self.tokens, self._types_with_ends())
        start, end = self.bos if self.adds_bos else None, self.eos if self.adds_eos else None
        tokenizer.post_processor = start_and_end(tokenizer, start, end)
        return tokenizer

    def config(self) -> dict[str, Any]:
        """tokenizer_config.json: special tokens and the chat template."""
        pad_id = self.special.padding_id()
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.bos,
            "eos_token": self.eos,
            "unk_token": self._token("unknown_token_id"),
            "pad_token": None if pad_id is None else self.tokens[pad_id],
            "add_bos_token": self.adds_bos,
            "add_eos_token": self.adds_eos,
            "clean_up_tokenization_spaces": False,
            "chat_template": self._template,
        }
        return {key: value for key, value in config.items() if value is not None}

    def _types_with_ends(self) -> list[int]:
        """The types, but a token that ends a turn is a control token whatever the file says, as in llama.cpp."""
        types = list(self.token_types)
        for token_id in self.special.end_texts():
            types[token_id] = int(PieceType.CONTROL)
        return types

    def _byte_level_bpe(self) -> Tokenizer:
        merges: Any = [tuple(merge.split(" ")) for merge in self._fields.texts("merges")]
        tokenizer = Tokenizer(models.BPE(self.vocabulary, merges, ignore_merges=self.flavor.ignore_merges))
        normalizer = self.flavor.normalizer()
        if normalizer is not None:
            tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = self.flavor.pre_tokenizer()
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer

    def _sentencepiece_bpe(self) -> Tokenizer:
        unknown = self._token("unknown_token_id")
        if unknown is None and PieceType.UNKNOWN in self.token_types:
            unknown = self.tokens[self.token_types.index(PieceType.UNKNOWN)]
        adds_space = self._fields.boolean("add_space_prefix", default=True)
        scores = self._fields.numbers("scores", len(self.tokens)).tolist()
        return build_sentencepiece_bpe(list(self.vocabulary), scores, self.token_types, unknown, adds_space)

    def _token(self, key: str) -> str | None:
        token_id = self.special.id(key)
        return None if token_id is None else self.tokens[token_id]
