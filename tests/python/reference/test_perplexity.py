"""Quantized and half-precision engines against the same weights in transformers' float32, on English prose."""

import pydoc_data.topics
import re

import hf_reference
import pytest
import torch

WINDOW = 512  # tokens that are scored together
WINDOWS = 8
DTYPES = {"auto": "int4 and int8 as converted from GGUF", "int8": "int8", "bfloat16": "bfloat16", "float32": "float32"}


def english_prose() -> str:
    """Paragraphs of the Python language reference, from the standard library: full sentences, no listings."""
    paragraphs = [p for _, text in sorted(pydoc_data.topics.topics.items()) for p in text.split("\n\n")]
    prose = [" ".join(p.split()) for p in paragraphs if re.match(r"[A-Z][a-z]", p) and p.rstrip().endswith(".")]
    return "\n\n".join(dict.fromkeys(p for p in prose if len(p) > 200))


@pytest.fixture(scope="module")
def windows(smollm2_engine) -> list[list[int]]:
    from inflight.text import Tokenizer

    tokens = Tokenizer(smollm2_engine() / "tokenizer").encode(english_prose())
    return [tokens[start : start + WINDOW] for start in range(0, WINDOW * WINDOWS, WINDOW)]


@pytest.fixture(scope="module")
def reference(smollm2_reference, windows):
    return evaluate(lambda window: hf_reference.logits(smollm2_reference, window), windows)


def evaluate(logits, windows) -> tuple[float, torch.Tensor]:
    """Perplexity, and the most likely token at every position. logits: tokens → float32 [tokens, vocab_size]."""
    losses, most_likely = [], []
    for window in windows:
        rows = torch.from_numpy(logits(window))
        losses.append(torch.nn.functional.cross_entropy(rows[:-1], torch.tensor(window[1:]), reduction="none"))
        most_likely.append(rows.argmax(dim=1))
    return float(torch.cat(losses).double().mean().exp()), torch.cat(most_likely)


@pytest.mark.parametrize("dtype", DTYPES, ids=DTYPES.values())
def test_perplexity_is_within_one_percent_of_transformers(
    dtype, windows, reference, smollm2_engine, record_property, capsys
):
    from inflight._native import Engine

    engine = Engine(smollm2_engine(dtype))
    perplexity, most_likely = evaluate(lambda window: engine.logits([window])[0], windows)
    expected, expected_tokens = reference
    figures = {
        "tokens": WINDOW * WINDOWS,
        "perplexity": round(perplexity, 4),
        "perplexity_of_transformers": round(expected, 4),
        "top1_agreement": round(float((most_likely == expected_tokens).double().mean()), 5),
    }
    for name, value in figures.items():
        record_property(name, value)
    with capsys.disabled():
        print(f"\n{DTYPES[dtype]}: {figures}")
    assert abs(perplexity / expected - 1) < 0.01
