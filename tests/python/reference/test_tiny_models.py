"""Every family and variation: logits and greedy tokens equal transformers' in float32."""

import hf_reference
import numpy as np
import pytest
import tiny_models
from greedy import greedy_tokens

LENGTHS = [1, 7, 20, 45, 64, 101]  # below, at and beyond windows, RoPE's original lengths, block sizes
VOCABULARY = 400  # ids that every tiny model has


def prompts_of(lengths, seed=0):
    random = np.random.default_rng(seed)
    return [random.integers(2, VOCABULARY, length).tolist() for length in lengths]


@pytest.mark.parametrize("chunk_size", [None, 1, 13])
@pytest.mark.parametrize("name", tiny_models.CONFIGS)
def test_logits_equal_those_of_transformers(name, chunk_size, tiny_engine, tiny_reference):
    from inflight._native import Engine

    prompts = prompts_of(LENGTHS)
    engine = Engine(tiny_engine(name, max_batch_size=4, max_num_tokens=128, max_seq_len=160, tokens_per_block=16))
    for prompt, rows in zip(prompts, engine.logits(prompts, chunk_size=chunk_size), strict=True):
        np.testing.assert_allclose(rows, hf_reference.logits(tiny_reference(name), prompt), rtol=0, atol=2e-4)


@pytest.mark.parametrize("chunk_size", [None, 1, 13])
@pytest.mark.parametrize("name", ["llama", "llama-multi-query", "mistral-sliding-window", "qwen2-sliding-layers"])
def test_logits_with_a_bfloat16_cache_are_near(name, chunk_size, tiny_engine, tiny_reference):
    from inflight._native import Engine

    prompts = prompts_of(LENGTHS)
    options = dict(max_batch_size=4, max_num_tokens=128, max_seq_len=160, kv_cache_dtype="bfloat16")
    for tokens_per_block in (2, 32):
        engine = Engine(tiny_engine(name, tokens_per_block=tokens_per_block, **options))
        for prompt, rows in zip(prompts, engine.logits(prompts, chunk_size=chunk_size), strict=True):
            expected = hf_reference.logits(tiny_reference(name), prompt)
            assert np.square(rows - expected).mean() < 1e-3 * np.square(expected).mean()


@pytest.mark.parametrize("together", [False, True], ids=["alone", "mixed batch"])
@pytest.mark.parametrize("name", tiny_models.CONFIGS)
def test_greedy_tokens_equal_those_of_transformers(name, together, tiny_engine, tiny_reference):
    prompts = prompts_of(LENGTHS, seed=1)
    engine = tiny_engine(name, max_batch_size=4, max_num_tokens=128, max_seq_len=160, tokens_per_block=16)
    for prompt, tokens in zip(prompts, greedy_tokens(engine, prompts, max_tokens=32, together=together), strict=True):
        assert len(tokens) == 32
        hf_reference.assert_greedy(tiny_reference(name), prompt, tokens)


@pytest.mark.parametrize("name", ["llama", "llama-rope-dynamic", "mistral-sliding-window", "qwen2-sliding-layers"])
@pytest.mark.parametrize("tokens_per_block", [8, 16, 32, 64, 128])
@pytest.mark.parametrize("max_num_tokens", [8, 37])
def test_context_chunks_and_block_sizes_change_no_token(
    name, tokens_per_block, max_num_tokens, tiny_engine, tiny_reference
):
    prompts = prompts_of(LENGTHS, seed=2)
    engine = tiny_engine(
        name, max_batch_size=5, max_num_tokens=max_num_tokens, max_seq_len=160, tokens_per_block=tokens_per_block
    )
    for prompt, tokens in zip(prompts, greedy_tokens(engine, prompts, max_tokens=24), strict=True):
        hf_reference.assert_greedy(tiny_reference(name), prompt, tokens)


def test_generation_ends_where_transformers_ends(tiny_engine, tiny_reference):
    """Each token that greedy decoding reaches, made the end id in turn, ends generation right before it."""
    prompt = prompts_of([20], seed=3)[0]
    engine = tiny_engine("llama", max_batch_size=4, max_num_tokens=128, max_seq_len=160, tokens_per_block=16)
    [tokens] = greedy_tokens(engine, [prompt], max_tokens=16)
    hf_reference.assert_greedy(tiny_reference("llama"), prompt, tokens)
    for end_id in set(tokens):
        [ended] = greedy_tokens(engine, [prompt], max_tokens=16, end_ids=(end_id,))
        assert ended == tokens[: tokens.index(end_id)]
