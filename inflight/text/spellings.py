"""The token sequences that a word may be generated as."""

from inflight.text.tokenizer import Tokenizer

_LINE_END = "\n"  # no tokenizer joins it with a word


def spellings(word: str, tokenizer: Tokenizer) -> list[list[int]]:
    """The word by itself, at the start of a word of a text, and inside of one: most tokenizers have other tokens after
    a space, and some put a space before a text. None for the empty string.

    What begins or ends within a token, as part of a longer word, is another sequence of tokens: not every text with the
    word in it has one of these.
    """
    encoded = [tokenizer.encode(word, False), tokenizer.encode(" " + word.lstrip(), False), _inside(word, tokenizer)]
    return [ids for index, ids in enumerate(encoded) if ids and ids not in encoded[:index]] if word else []


def _inside(word: str, tokenizer: Tokenizer) -> list[int]:
    before = tokenizer.encode(_LINE_END, False)
    both = tokenizer.encode(_LINE_END + word, False)
    return both[len(before) :] if both[: len(before)] == before else []
