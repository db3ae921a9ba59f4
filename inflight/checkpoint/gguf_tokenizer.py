"""The tokenizer in a GGUF file's metadata → tokenizer.json and tokenizer_config.json.

Two kinds: "gpt2" is byte-level BPE with merges; "llama" is SentencePiece BPE, where the scores of the
pieces stand for merges. Semantics are llama.cpp's (llama-vocab.cpp) and the original tokenizers'.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models

from inflight.checkpoint.gguf_file import GgufFile
from inflight.checkpoint.gguf_pretokenizers import FLAVORS
from inflight.checkpoint.sentencepiece_bpe import (
    PieceType,
    add_typed_tokens,
    build_sentencepiece_bpe,
    start_and_end,
)
from inflight.errors import InflightError


def save_tokenizer(file: GgufFile, directory: Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json into `directory`.

    Raises InflightError naming the file and the key for an unknown kind of tokenizer or malformed metadata.
    """
    metadata = TokenizerMetadata(file)
    tokenizer = metadata.build()
    tokenizer.save(str(directory / "tokenizer.json"))
    text = json.dumps(metadata.config(), indent=2, ensure_ascii=False)
    (directory / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


class TokenizerMetadata:
    """The `tokenizer.*` keys of a GGUF file, checked."""

    def __init__(self, file: GgufFile):
        self._path = file.path
        self._metadata = file.metadata
        self.kind = self._get("model", str)
        if self.kind not in ("gpt2", "llama"):
            self._fail("model", self.kind, "gpt2 (byte-level BPE) or llama (SentencePiece BPE)")
        self.tokens = self._strings("tokens")
        self.token_types = (
            self._numbers("token_type") if self._has("token_type") else [int(PieceType.NORMAL)] * len(self.tokens)
        )
        self.vocabulary = {token or f"[EMPTY_{i}]": i for i, token in enumerate(self.tokens)}
        if len(self.vocabulary) != len(self.tokens):
            self._fail("tokens", "ambiguous", "every token once")
        self.flavor = None
        if self.kind == "gpt2":
            pre = self._get("pre", str, "default")
            if pre not in FLAVORS:
                self._fail("pre", pre, "one of " + ", ".join(sorted(FLAVORS)))
            self.flavor = FLAVORS[pre]
        # llama.cpp's defaults: SentencePiece models add bos, byte-level ones only if their kind does
        self.adds_bos = self._get("add_bos_token", bool, self.kind == "llama" or self.flavor.adds_bos)
        self.adds_eos = self._get("add_eos_token", bool, False)
        self.bos, self.eos = self._token("bos_token_id"), self._token("eos_token_id")

    def build(self) -> Tokenizer:
        try:
            tokenizer = self._byte_level_bpe() if self.kind == "gpt2" else self._sentencepiece_bpe()
        except InflightError:
            raise
        except Exception as error:  # the tokenizers library raises plain Exception
            raise InflightError(f"{self._path}: tokenizer.ggml.merges do not fit the tokens: {error}") from error
        add_typed_tokens(tokenizer, self.tokens, self.token_types)
        start, end = self.bos if self.adds_bos else None, self.eos if self.adds_eos else None
        tokenizer.post_processor = start_and_end(tokenizer, start, end)
        return tokenizer

    def config(self) -> dict[str, Any]:
        """tokenizer_config.json: special tokens and the chat template."""
        template = self._metadata.get("tokenizer.chat_template")
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.bos,
            "eos_token": self.eos,
            "unk_token": self._token("unknown_token_id"),
            "pad_token": self._token("padding_token_id"),
            "add_bos_token": self.adds_bos,
            "add_eos_token": self.adds_eos,
            "clean_up_tokenization_spaces": False,
            "chat_template": template if isinstance(template, str) else None,
        }
        return {key: value for key, value in config.items() if value is not None}

    def _byte_level_bpe(self) -> Tokenizer:
        merges = [tuple(merge.split(" ")) for merge in self._strings("merges")]
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
        adds_space = self._get("add_space_prefix", bool, True)
        return build_sentencepiece_bpe(
            list(self.vocabulary), self._numbers("scores"), self.token_types, unknown, adds_space
        )

    def _token(self, key: str) -> str | None:
        if not self._has(key):
            return None
        token_id = self._get(key, int)
        if not 0 <= token_id < len(self.tokens):
            self._fail(key, token_id, f"a token id below {len(self.tokens)}")
        return self.tokens[token_id]

    def _has(self, key: str) -> bool:
        return f"tokenizer.ggml.{key}" in self._metadata

    def _get(self, key: str, kind: type, default: Any = None) -> Any:
        value = self._metadata.get(f"tokenizer.ggml.{key}", default)
        if value is None:
            raise InflightError(f"{self._path}: metadata key tokenizer.ggml.{key} is missing")
        if not isinstance(value, kind):
            self._fail(key, f"of type {type(value).__name__}", kind.__name__)
        return value

    def _strings(self, key: str) -> list[str]:
        values = self._get(key, list)
        if not all(isinstance(value, str) for value in values):
            self._fail(key, "a list of something else", "strings")
        return values

    def _numbers(self, key: str) -> list[float]:
        """One number for each token."""
        values = self._get(key, np.ndarray)
        if len(values) != len(self.tokens):
            self._fail(key, f"{len(values)} long", f"one for each of {len(self.tokens)} tokens")
        return values.tolist()

    def _fail(self, key: str, found: Any, expected: str) -> None:
        raise InflightError(f"{self._path}: tokenizer.ggml.{key} is {found}; expected {expected}")
