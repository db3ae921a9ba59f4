"""What is refused before it is tokenized, and what never is: a prompt that fits into the engine."""

import pytest
from small_tokenizers import KINDS

from inflight.errors import InflightError
from inflight.text import Tokenizer
from inflight.text.prompt_encoder import PromptEncoder, PromptLimits

MAX_TOKENS = 64


@pytest.fixture(params=KINDS)
def tokenizer(request, tokenizer_dirs) -> Tokenizer:
    return Tokenizer(tokenizer_dirs[request.param])


@pytest.fixture
def encoded_lengths(monkeypatch) -> list[int]:
    """How long the texts were that were tokenized."""
    lengths = []
    encode = Tokenizer.encode

    def record(self, text, *arguments):
        lengths.append(len(text))
        return encode(self, text, *arguments)

    monkeypatch.setattr(Tokenizer, "encode", record)
    return lengths


def longest_text(tokenizer: Tokenizer) -> str:
    """The longest that fits into MAX_TOKENS tokens: nothing but the tokenizer's longest one."""
    texts = [tokenizer.decode([token], False) for token in range(tokenizer.vocab_size)]
    return max(texts, key=lambda text: len(text.encode())) * MAX_TOKENS


def test_longest_text_of_as_many_tokens_as_the_engine_takes_is_encoded(tokenizer):
    text = longest_text(tokenizer)
    encoder = PromptEncoder(tokenizer, PromptLimits(MAX_TOKENS))
    encoder.check_size("the prompt", text.encode())
    assert encoder.encode("the prompt", text, False) == tokenizer.encode(text, False)


def test_text_beyond_that_is_refused_by_its_bytes(tokenizer):
    encoder = PromptEncoder(tokenizer, PromptLimits(MAX_TOKENS))
    size = MAX_TOKENS * tokenizer.longest_token_bytes
    with pytest.raises(
        InflightError, match=f"the prompt has {size + 1} bytes; .* at most 63 tokens, .* {size} bytes: .*max_text_bytes"
    ):
        encoder.check_size("the prompt", b"x" * (size + 1))


def test_bytes_can_be_configured(tokenizer):
    encoder = PromptEncoder(tokenizer, PromptLimits(MAX_TOKENS, max_bytes=10))
    encoder.check_size("the prompt", b"x" * 10)
    with pytest.raises(InflightError, match="has 11 bytes; at most 10"):
        encoder.check_size("the prompt", b"x" * 11)


def test_without_an_engine_a_text_is_bounded_all_the_same(tokenizer):
    with pytest.raises(InflightError, match=f"at most {2**22} are tokenized"):
        PromptEncoder(tokenizer, PromptLimits()).check_size("the prompt", b"x" * (2**22 + 1))


def test_text_of_far_too_many_tokens_is_refused_by_its_beginning(tokenizer, encoded_lengths):
    text = "z9 " * 100_000
    with pytest.raises(InflightError, match=r"more than \d+ tokens; this engine takes at most 63: .*--max-seq-len"):
        PromptEncoder(tokenizer, PromptLimits(MAX_TOKENS)).encode("the prompt", text, True)
    assert sum(encoded_lengths) <= 16 * MAX_TOKENS


def test_text_that_may_fit_is_left_to_the_engine(tokenizer):
    """Its message says how many tokens there are."""
    text = "z9 " * MAX_TOKENS
    assert len(PromptEncoder(tokenizer, PromptLimits(MAX_TOKENS)).encode("the prompt", text, False)) >= MAX_TOKENS
