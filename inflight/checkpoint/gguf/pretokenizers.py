"""How each GGUF pre-tokenizer (`tokenizer.ggml.pre`) splits text before byte-level BPE.

The expressions are those of the models' original tokenizer.json files, which llama.cpp (llama-vocab.cpp)
approximates in its own regex dialect; "default" is llama.cpp's, for files that do not say.
"""

from dataclasses import dataclass

from tokenizers import Regex, normalizers, pre_tokenizers
from tokenizers.pre_tokenizers import PreTokenizer

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)


@dataclass(frozen=True)
class BpeFlavor:
    """What a pre-tokenizer name stands for.

    splits: expressions applied one after another, each isolating its matches. ignore_merges: a piece that is
    itself a token is taken whole. adds_bos: unless the file says otherwise. normalizes: text is put into
    Unicode's NFC first.
    """

    splits: tuple[str, ...]
    ignore_merges: bool = False
    adds_bos: bool = False
    normalizes: bool = False

    def normalizer(self) -> normalizers.Normalizer | None:
        return normalizers.NFC() if self.normalizes else None

    def pre_tokenizer(self) -> PreTokenizer:
        """Splits, then spells the pieces in the byte-level alphabet."""
        steps = [pre_tokenizers.Split(Regex(split), behavior="isolated") for split in self.splits]
        return pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


_DEFAULT_FLAVOR = BpeFlavor((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"))
_GPT2_FLAVOR = BpeFlavor((_GPT2,))
_DIGITS_FLAVOR = BpeFlavor((r"\p{N}", _GPT2))
_LLAMA3_FLAVOR = BpeFlavor((_LLAMA3,), ignore_merges=True, adds_bos=True)
_QWEN2_FLAVOR = BpeFlavor((_QWEN2,))

FLAVORS = {
    "default": _DEFAULT_FLAVOR,
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "gigachat", "mellum", "a.x-4.0", "trillion"), _GPT2_FLAVOR),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "minerva-7b"), _DIGITS_FLAVOR),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "midm-2.0"), _LLAMA3_FLAVOR),
    **dict.fromkeys(("smaug-bpe", "dbrx"), BpeFlavor((_LLAMA3,))),
    "qwen2": BpeFlavor((_QWEN2,), normalizes=True),
    **dict.fromkeys(("deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan"), _QWEN2_FLAVOR),
    "tekken": BpeFlavor((_TEKKEN,), ignore_merges=True, adds_bos=True),
    "deepseek-coder": BpeFlavor((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}")),
    "deepseek-v3": BpeFlavor(_DEEPSEEK_V3),
}
