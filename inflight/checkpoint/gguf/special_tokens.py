"""The special tokens of GGUF metadata, as llama.cpp finds them (llama-vocab.cpp)."""

from inflight.checkpoint.sentencepiece.bpe import PieceType
from inflight.fields import Fields

PREFIX = "tokenizer.ggml."
_NONE = (-1, 2**32 - 1)  # llama.cpp's LLAMA_TOKEN_NULL, signed and unsigned
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
# llama.cpp's ids for SentencePiece models whose metadata do not say
_SENTENCEPIECE_IDS = {"unknown_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
# GGUF has one end id of each kind; models have more. llama.cpp finds the rest by these texts, whatever their type.
_END_TOKENS = frozenset(
    (
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "<|eom_id|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "<|end_of_text|>",
        "<end_of_utterance>",
        "<eos>",
        "<｜end▁of▁sentence｜>",
    )
)


class SpecialTokens:
    """fields: `tokenizer.ggml.*`. tokens, types: of the whole vocabulary; types are PieceType.

    Raises InflightError naming the key of an id that is none of the vocabulary's.
    """

    def __init__(self, fields: Fields, tokens: list[str], types: list[int]):
        self._fields = fields
        self._tokens = tokens
        self._types = types
        self._defaults = _SENTENCEPIECE_IDS if fields.text("model") == "llama" else {}

    def id(self, key: str) -> int | None:
        """The id that `key` gives, or None."""
        token_id = self._fields.integer(key, minimum=-1, maximum=2**32 - 1, default=-1)
        if token_id in _NONE:
            return self._default(key)
        if token_id >= len(self._tokens):
            self._fields.fail(key, f"a token id below {len(self._tokens)}")
        return token_id

    def padding_id(self) -> int | None:
        """None also for an id beyond the vocabulary: some converters drop a <pad> that was added, and nothing is ever
        computed with it."""
        token_id = self._fields.integer("padding_token_id", minimum=-1, maximum=2**32 - 1, default=-1)
        return token_id if 0 <= token_id < len(self._tokens) else None

    def end_ids(self) -> list[int]:
        """Every token that ends generation."""
        named = [token_id for key in _END_KEYS if (token_id := self.id(key)) is not None]
        return list(dict.fromkeys(named + self.end_texts()))

    def end_texts(self) -> list[int]:
        """The tokens that end a turn by their text."""
        return [token_id for token_id, token in enumerate(self._tokens) if token in _END_TOKENS]

    def _default(self, key: str) -> int | None:
        token_id = self._defaults.get(key)
        expected = PieceType.UNKNOWN if key == "unknown_token_id" else PieceType.CONTROL
        is_there = token_id is not None and token_id < len(self._types) and self._types[token_id] == expected
        return token_id if is_there else None
