"""SentencePiece BPE the slow and plain way, over a vocabulary trained on a few texts."""

import struct
from functools import cache
from itertools import pairwise

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

TEXTS = [
    "Hello world! It's 2024, isn't it? They'LL pay $1,234.56.",
    "  several   spaces\n\n\nand lines \t tabs  \r\n end ",
    "Ünïcödé naïve café — “quotes” … 👩‍👩‍👧‍👦 你好，世界！123٣½ 日本語 한국어",
    "def f(x):\n    return x ** 2  # comment\n",
    "<|im_start|>user\nhi<|im_end|>\n<think> so",
    "",
    " leading",
]
BPE, UNIGRAM = 2, 1  # TrainerSpec.ModelType
CORPUS = [*TEXTS, "2024 1234 2024 1234", "the return of the naïve café user's comments"] * 4


@cache  # training breaks ties differently every time
def pieces_and_scores() -> tuple[list[str], list[float], list[int]]:
    """A trained vocabulary: <unk>, <s>, </s>, 256 bytes, merged pieces by falling score, characters, a user's token."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=300, show_progress=False, limit_alphabet=60))
    vocabulary = trained.get_vocab()
    merged = [token for token in sorted(vocabulary, key=vocabulary.get) if len(token) > 1]
    letters = [token for token in vocabulary if len(token) == 1]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *merged, *letters, "<think>"]
    scores = [0.0] * 259 + [-float(i) for i in range(len(merged))] + [-1e9] * len(letters) + [0.0]
    kinds = [2, 3, 3] + [6] * 256 + [1] * (len(merged) + len(letters)) + [4]
    return tokens, scores, kinds


def llama_cpp_sentencepiece(text: str, adds_space: bool) -> list[int]:
    """llm_tokenizer_spm: merge the neighbors whose piece has the highest score, leftmost first; bytes for the rest."""
    tokens, scores, _ = pieces_and_scores()
    vocabulary = {token: i for i, token in enumerate(tokens)}
    symbols = list(((" " if adds_space and text else "") + text).replace(" ", "\u2581"))
    while True:
        candidates = [
            (-scores[vocabulary[left + right]], i)
            for i, (left, right) in enumerate(pairwise(symbols))
            if left + right in vocabulary
        ]
        if not candidates:
            break
        i = min(candidates)[1]
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
    ids = []
    for symbol in symbols:
        ids += [vocabulary[symbol]] if symbol in vocabulary else [3 + byte for byte in symbol.encode()]
    return ids


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def message(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def flag(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def model_proto(kind=BPE, adds_space=True, removes_spaces=False, vocabulary=None) -> bytes:
    """sentencepiece_model.proto's ModelProto, written by hand. vocabulary: as pieces_and_scores gives it."""
    tokens, scores, types = vocabulary or pieces_and_scores()
    pieces = b"".join(
        message(1, message(1, token.encode()) + b"\x15" + struct.pack("<f", score) + flag(3, piece_type))
        for token, score, piece_type in zip(tokens, scores, types, strict=True)
    )
    normalizer = message(1, b"identity") + flag(3, adds_space) + flag(4, removes_spaces)
    return pieces + message(2, flag(3, kind) + flag(4, len(tokens))) + message(3, normalizer)
