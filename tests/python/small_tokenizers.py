"""Small tokenizers of the two kinds that language models have, built on the spot."""

import json

from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as FastTokenizer

SENTENCES = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on.",
    "机器学习是人工智能的一个分支。你好，世界！",
    "Ünïcödé naïve café — “quotes” … 👩‍👩‍👧‍👦 🎉🎊 日本語 한국어 العربية",
]


def byte_level() -> FastTokenizer:
    """Byte-level BPE as SmolLM2, Llama 3 and Qwen have it: every byte is a token, characters may be split."""
    tokenizer = FastTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES[:1] * 20, trainer)
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("<think>", special=False)])
    return tokenizer


def sentencepiece() -> FastTokenizer:
    """What Llama 2 and Mistral have: words that begin with ▁, and byte tokens for the rest."""
    letters = sorted({character for character in SENTENCES[0].replace(" ", "▁")})
    words = ["▁The", "▁dog", "▁▁", "你", "好", "世界"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *words]
    vocabulary = [(token, -float(len(tokens) if token.startswith("<") else 1)) for token in tokens]
    tokenizer = FastTokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def metaspace() -> FastTokenizer:
    """What T5 and older sentencepiece conversions have: the first word's ▁ is no space."""
    tokenizer = sentencepiece()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def llama2() -> FastTokenizer:
    """Llama 2's own: BPE with byte tokens, and a decoder that drops the space that the normalizer puts first."""
    tokenizer = sentencepiece()
    words = [
        *tokenizer.get_vocab(),
        "▁yes",
        "yes",
        "no",
        "▁no",
        "▁{",
        '{"',
        '":',
        "▁▁▁",
        '"}',
        "▁true",
        "12",
        "▁12",
        "▁a",
    ]
    return _spelled_bpe(words, tokenizer)


def gemma() -> FastTokenizer:
    """As llama2, without a space that is put first and dropped."""
    tokenizer = llama2()
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def t5() -> FastTokenizer:
    """What T5 has: no byte tokens, and every ▁ of the first token is dropped."""
    characters = [chr(code) for code in range(0x21, 0x7F)] + ["▁", "é", "猫", "🙂", "ü", "一", "\n", "\t"]
    words = ["▁yes", "yes", "▁no", "▁▁", "▁{", '{"', '":', "▁12", "▁true", "▁a▁b", '▁"', "false"]
    vocabulary = [(token, -1.0) for token in ["<unk>", "</s>", *characters, *words]]
    tokenizer = FastTokenizer(models.Unigram(vocabulary, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<unk>", "</s>"])
    return tokenizer


def _spelled_bpe(tokens: list[str], like: FastTokenizer) -> FastTokenizer:
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = FastTokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer, tokenizer.decoder = like.normalizer, like.decoder
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


KINDS = {
    "byte_level": byte_level,
    "sentencepiece": sentencepiece,
    "llama2": llama2,
    "gemma": gemma,
    "metaspace": metaspace,
    "t5": t5,
}


def save(tokenizer: FastTokenizer, directory, **config):
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory
