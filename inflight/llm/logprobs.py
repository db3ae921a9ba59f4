"""Log-probabilities of tokens, in the form that vLLM's users know."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inflight.text import Tokenizer


@dataclass(frozen=True)
class Logprob:
    """logprob: log-softmax of the model's raw logits. rank: 1 is the most likely token. decoded_token: its text alone,
    None where nothing is detokenized."""

    logprob: float
    rank: int
    decoded_token: str | None = None


# By token id: a chosen token first, then the most likely ones, best first.
Logprobs = dict[int, Logprob]


def token_logprobs(
    chosen: tuple[int, float, int], top: Sequence[tuple[int, float]], tokenizer: Tokenizer | None
) -> Logprobs:
    """chosen: token, log-probability and rank. top: token and log-probability of the most likely, best first."""
    token, logprob, rank = chosen
    ranked = {token: (logprob, rank)}
    for position, (likely, value) in enumerate(top, start=1):
        ranked.setdefault(likely, (value, position))
    return {
        each: Logprob(value, position, tokenizer.decode([each], skip_special_tokens=False) if tokenizer else None)
        for each, (value, position) in ranked.items()
    }


def prompt_logprobs(
    logits: np.ndarray, token_ids: Sequence[int], count: int, tokenizer: Tokenizer | None
) -> list[Logprobs | None]:
    """Of every token of a prompt, given those before it; None for the first, before which there is nothing.

    logits: float32 [len(token_ids), vocab_size], the model's at every token. count: of the most likely tokens.
    """
    result: list[Logprobs | None] = [None]
    for row, token in zip(logits, token_ids[1:], strict=False):
        shifted = row - row.max()
        values = shifted - np.log(np.exp(shifted).sum())
        likeliest = np.argpartition(-values, count)[:count] if count < len(values) else np.arange(len(values))
        likeliest = likeliest[np.lexsort((likeliest, -values[likeliest]))]
        rank = 1 + int((row > row[token]).sum())
        top = [(int(each), float(values[each])) for each in likeliest]
        result.append(token_logprobs((token, float(values[token]), rank), top, tokenizer))
    return result
