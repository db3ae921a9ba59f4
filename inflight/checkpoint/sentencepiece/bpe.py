"""SentencePiece BPE vocabularies → tokenizers: what Llama 2 and Mistral use, in GGUF files and tokenizer.model.

SentencePiece has no list of merges: it merges the neighbors that make the piece of the highest score.
https://github.com/google/sentencepiece/blob/master/src/bpe_model.cc
"""

from enum import IntEnum

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

SPACE = "\u2581"  # SentencePiece's


class PieceType(IntEnum):
    """sentencepiece_model.proto's ModelProto.SentencePiece.Type, and GGUF's tokenizer.ggml.token_type."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def build_sentencepiece_bpe(
    tokens: list[str], scores: list[float], types: list[int], unknown: str | None, adds_space: bool
) -> Tokenizer:
    """A tokenizer without added tokens or post-processor.

    tokens, scores, types: one entry for each id; types are PieceType. unknown: the token for what neither
    pieces nor bytes spell. adds_space: before every stretch of text between added tokens.
    """
    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = _merges(tokens, scores, types)
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    replace = normalizers.Replace(" ", SPACE)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), replace]) if adds_space else replace
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps + ([decoders.Strip(" ", 1, 0)] if adds_space else []))
    return tokenizer


def add_typed_tokens(tokenizer: Tokenizer, tokens: list[str], types: list[int]) -> None:
    """Makes control tokens special, and user-defined ones added: text that spells them becomes their id."""
    tokenizer.add_tokens(
        [
            AddedToken(token, normalized=False, special=token_type != PieceType.USER_DEFINED)
            for token, token_type in zip(tokens, types, strict=True)
            if token and token_type in (PieceType.UNKNOWN, PieceType.CONTROL, PieceType.USER_DEFINED)
        ]
    )


def start_and_end(tokenizer: Tokenizer, start: str | None, end: str | None) -> processors.PostProcessor:
    """The post-processor that puts these tokens around a text; None: nothing there."""
    before, after = ([token] if token is not None else [] for token in (start, end))
    if not before and not after:
        return processors.ByteLevel(trim_offsets=False)
    first, second = [*before, "$A", *after], [*(f"{t}:1" for t in before), "$B:1", *(f"{t}:1" for t in after)]
    special = [(token, tokenizer.token_to_id(token)) for token in dict.fromkeys(before + after)]
    return processors.TemplateProcessing(single=first, pair=first + second, special_tokens=special)


def _merges(tokens: list[str], scores: list[float], types: list[int]) -> list[tuple[str, str]]:
    """Every way to make each piece from two others, the best pieces first."""
    ids = [i for i, piece in enumerate(types) if piece not in (PieceType.UNKNOWN, PieceType.CONTROL)]
    pieces = {tokens[i] for i in ids}
    return [
        (token[:cut], token[cut:])
        for token in (tokens[i] for i in sorted(ids, key=lambda i: -scores[i]))
        for cut in range(1, len(token))
        if token[:cut] in pieces and token[cut:] in pieces
    ]
