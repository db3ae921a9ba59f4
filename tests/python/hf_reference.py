"""transformers in float32: the reference that engines are held to."""

from functools import cache

import numpy as np
import torch
from transformers import PreTrainedModel

TIE = 1e-4  # where the two largest logits are closer than this, either token is right


@torch.no_grad()
def logits(model: PreTrainedModel, tokens: list[int], prompt_length: int | None = None) -> np.ndarray:
    """Logits after each of `tokens`, float32 [tokens, vocab_size].

    prompt_length: the tokens after it are fed one by one, as generation does; dynamic RoPE scaling, where a token
    keeps the frequencies of the length at which it was first seen, differs from the single pass of the default.
    """
    _forget_lengths(model)
    output = model(torch.tensor([tokens[:prompt_length]]), use_cache=True)
    rows = [output.logits[0]]
    for token in tokens[prompt_length:] if prompt_length else []:
        output = model(torch.tensor([[token]]), past_key_values=output.past_key_values, use_cache=True)
        rows.append(output.logits[0])
    return torch.cat(rows).numpy()


def assert_greedy(model: PreTrainedModel, prompt: list[int], generated: list[int]) -> None:
    """Each of `generated` is the reference's choice after what precedes it, or ties with it."""
    best, behind = _choices(model, tuple(prompt), tuple(generated))
    wrong = np.flatnonzero(behind > TIE)
    assert not wrong.size, (
        f"generated token {wrong[0]} after a prompt of {len(prompt)} tokens is {generated[wrong[0]]}; the reference "
        f"chooses {best[wrong[0]]}, whose logit is larger by {behind[wrong[0]]:.2e}"
    )


@cache  # batches, chunks and block sizes lead to the same tokens
def _choices(model: PreTrainedModel, prompt: tuple[int, ...], generated: tuple[int, ...]):
    """The reference's token at each generated position, and how much larger its logit is than the generated one's."""
    steps = len(prompt) if _has_dynamic_rope(model) else None
    rows = logits(model, [*prompt, *generated], steps)[len(prompt) - 1 : -1]
    return rows.argmax(axis=1), rows.max(axis=1) - rows[np.arange(len(generated)), generated]


def _has_dynamic_rope(model: PreTrainedModel) -> bool:
    return model.config.rope_parameters["rope_type"] == "dynamic"


def _forget_lengths(model: PreTrainedModel) -> None:
    """Dynamic scaling keeps the longest sequence that it has seen, across calls."""
    if _has_dynamic_rope(model):
        rotary = model.model.rotary_emb
        rotary.inv_freq = rotary.original_inv_freq
        rotary.max_seq_len_cached = rotary.original_max_seq_len
