"""Quantized and half-precision engines against the same weights in transformers' float32, on English prose."""

import pydoc_data.topics
import re

import hf_reference
import numpy as np
import pytest

WINDOW = 512  # tokens that are scored together
WINDOWS = 8
DTYPES = {"auto": "int4 and int8 as converted from GGUF", "int8": "int8", "bfloat16": "bfloat16", "float32": "float32"}


def english_prose() -> str:
    """Paragraphs of the Python language reference, from the standard library: full sentences, no listings."""
    paragraphs = [p for _, text in sorted(pydoc_data.topics.topics.items()) for p in text.split("\n\n")]
    prose = [" ".join(p.split()) for p in paragraphs if re.match(r"[A-Z][a-z]", p) and p.rstrip().endswith(".")]
    return "\n\n".join(dict.fromkeys(p for p in prose if len(p) > 200))


def score(rows: np.ndarray, tokens: list[int]) -> np.ndarray:
    """Negative log-likelihood of each token but the first, from the logits after the one before it."""
    rows, targets = rows[:-1].astype(np.float64), np.array(tokens[1:])
    largest = rows.max(axis=1)
    log_sum = largest + np.log(np.exp(rows - largest[:, None]).sum(axis=1))
    return log_sum - rows[np.arange(len(targets)), targets]


@pytest.fixture(scope="module")
def windows(smollm2_engine) -> list[list[int]]:
    from inflight.text import Tokenizer

    tokens = Tokenizer(smollm2_engine() / "tokenizer").encode(english_prose())
    return [tokens[start : start + WINDOW] for start in range(0, WINDOW * WINDOWS, WINDOW)]


@pytest.fixture(scope="module")
def reference(smollm2_reference, windows):
    """Perplexity, and the most likely token at every position."""
    rows = [hf_reference.logits(smollm2_reference, window) for window in windows]
    return _perplexity(rows, windows), np.concatenate([r.argmax(axis=1) for r in rows])


def _perplexity(rows, windows) -> float:
    return float(np.exp(np.concatenate([score(r, w) for r, w in zip(rows, windows)]).mean()))


@pytest.mark.parametrize("dtype", DTYPES, ids=DTYPES.values())
def test_perplexity_is_within_one_percent_of_transformers(
    dtype, windows, reference, smollm2_engine, record_property, capsys
):
    from inflight._native import Engine

    rows = Engine(smollm2_engine(dtype)).logits(windows)
    perplexity, agreement = _perplexity(rows, windows), np.concatenate([r.argmax(axis=1) for r in rows])
    expected, top = reference
    figures = {
        "tokens": WINDOW * WINDOWS,
        "perplexity": round(perplexity, 4),
        "perplexity_of_transformers": round(expected, 4),
        "top1_agreement": round(float((agreement == top).mean()), 5),
    }
    for name, value in figures.items():
        record_property(name, value)
    with capsys.disabled():
        print(f"\n{DTYPES[dtype]}: {figures}")
    assert abs(perplexity / expected - 1) < 0.01
