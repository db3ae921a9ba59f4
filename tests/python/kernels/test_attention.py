"""Rotary embedding, the paged cache and attention against float64."""

import pytest
import torch
from interpreted_kernels import DTYPES, TOLERANCES, error, poisoned, run

from inflight.kernels.context_attention import CONTEXT_ATTENTION
from inflight.kernels.generation_attention import COMBINE_ATTENTION, GENERATION_ATTENTION
from inflight.kernels.rotary import ROTATE_AND_CACHE
from inflight.kernels.rotate_and_attend import ROTATE_AND_ATTEND

TOKENS_PER_BLOCK = 16


class PagedCache:
    """Keys and values of sequences in blocks in random order; what no sequence owns is NaN."""

    def __init__(self, lengths, kv_heads, head_size, dtype):
        self.lengths, self.kv_heads, self.head_size = lengths, kv_heads, head_size
        blocks = [-(-length // TOKENS_PER_BLOCK) for length in lengths]
        order = torch.randperm(sum(blocks) + 2)[: sum(blocks)].int()
        self.table = torch.full((len(lengths), max(blocks)), 2**30, dtype=torch.int32)
        for row, owned in zip(self.table, order.split(blocks), strict=True):
            row[: len(owned)] = owned
        shape = (sum(blocks) + 2, TOKENS_PER_BLOCK, kv_heads, head_size)
        self.keys, self.values = poisoned(*shape, dtype=dtype), poisoned(*shape, dtype=dtype)

    def fill(self):
        for sequence, length in enumerate(self.lengths):
            for position in range(length):
                block, slot = self.place(sequence, position)
                for pool in (self.keys, self.values):
                    pool[block, slot] = torch.randn(self.kv_heads, self.head_size).to(pool.dtype)
        return self

    def place(self, sequence, position):
        return int(self.table[sequence, position // TOKENS_PER_BLOCK]), position % TOKENS_PER_BLOCK

    def of_sequence(self, pool, sequence):
        """[length, kv_heads, head_size] in float64"""
        places = [self.place(sequence, position) for position in range(self.lengths[sequence])]
        return torch.stack([pool[block, slot] for block, slot in places]).double()

    def arguments(self):
        return {
            "key_cache": self.keys,
            "value_cache": self.values,
            "block_table": self.table,
            "table_stride": self.table.stride(0),
            "block_stride": self.keys.stride(0),
            "token_stride": self.keys.stride(1),
            "head_stride": self.keys.stride(2),
            "block_shift": TOKENS_PER_BLOCK.bit_length() - 1,
            "kv_heads": self.kv_heads,
        }


def rotated(x, position, cos_sin, interleaved):
    """x [heads, head_size] in float64, turned by the definition, pair by pair."""
    y, half = x.clone(), cos_sin.shape[1] // 2
    for pair in range(half):
        a, b = (2 * pair, 2 * pair + 1) if interleaved else (pair, pair + half)
        cos, sin = cos_sin[position, pair].double(), cos_sin[position, half + pair].double()
        y[:, a], y[:, b] = x[:, a] * cos - x[:, b] * sin, x[:, b] * cos + x[:, a] * sin
    return y


@pytest.mark.parametrize(
    ("dtype", "interleaved", "head_size", "rotary_size", "normalize"),
    [
        ("bf16", False, 64, 64, False),
        ("fp16", True, 64, 64, True),
        ("fp16", False, 80, 32, True),
        ("bf16", True, 80, 32, False),
        ("fp16", False, 128, 0, True),
    ],
)
def test_rotate_and_cache(dtype, interleaved, head_size, rotary_size, normalize):
    query_heads, kv_heads, lengths = 5, 2, [20, 3]
    cache = PagedCache(lengths, kv_heads, head_size, dtype)
    sequences, positions = [0, 0, 1, 0], [17, 0, 2, 15]
    qkv = torch.randn(4, query_heads + 2 * kv_heads, head_size).to(DTYPES[dtype])
    angles = torch.rand(32, max(rotary_size // 2, 1)) * 6
    cos_sin = torch.cat([angles.cos(), angles.sin()], 1)
    norms = [torch.rand(head_size) + 0.5 for _ in range(2)]
    queries = poisoned(4, query_heads, head_size, dtype=dtype)
    run(
        ROTATE_AND_CACHE,
        {"dtype": dtype, "cache": dtype},
        {"HEAD_SIZE": head_size, "INTERLEAVED": interleaved, "NORMALIZE": normalize},
        cache.arguments()
        | {
            "queries": queries,
            "qkv": qkv,
            "query_norm": norms[0] if normalize else None,
            "key_norm": norms[1] if normalize else None,
            "cos_sin": cos_sin,
            "positions": torch.tensor(positions, dtype=torch.int32),
            "sequences": torch.tensor(sequences, dtype=torch.int32),
            "tokens": 4,
            "query_heads": query_heads,
            "rotary_size": rotary_size,
            "epsilon": 1e-6,
            "key_scale": 1.0,
            "value_scale": 1.0,
        },
    )

    def reference(token, heads, weight):
        x = qkv[token, heads].double()
        if normalize:
            x = x / (x.square().mean(1, keepdim=True) + 1e-6).sqrt() * weight.double()
        return rotated(x, positions[token], cos_sin[:, :rotary_size], interleaved)

    written = set()
    for token, (sequence, position) in enumerate(zip(sequences, positions, strict=True)):
        block, slot = cache.place(sequence, position)
        written.add((block, slot))
        assert error(queries[token], reference(token, slice(0, 5), norms[0])) < TOLERANCES[dtype]
        assert error(cache.keys[block, slot], reference(token, slice(5, 7), norms[1])) < TOLERANCES[dtype]
        assert torch.equal(cache.values[block, slot], qkv[token, 7:9])
    untouched = [cache.keys[b, s] for b in range(len(cache.keys)) for s in range(16) if (b, s) not in written]
    assert torch.stack(untouched).isnan().all()


def attention(queries, cache, sequence, scores):
    """The reference: queries [tokens, heads, head_size], the last ones of their sequence."""
    keys, values = cache.of_sequence(cache.keys, sequence), cache.of_sequence(cache.values, sequence)
    group = queries.shape[1] // cache.kv_heads
    keys, values = keys.repeat_interleave(group, 1), values.repeat_interleave(group, 1)
    products = torch.einsum("qhd,khd->hqk", queries.double(), keys) * scores["scale"]
    length = len(keys)
    key, query = torch.arange(length)[None, :], torch.arange(length - len(queries), length)[:, None]
    if scores["SCORES"] == "soft_cap":
        products = scores["soft_cap"] * (products / scores["soft_cap"]).tanh()
    if scores["SCORES"] == "alibi":
        products = products + scores["slopes"].double()[:, None, None] * (key - query)
    sees = key <= query
    if scores["window"]:
        sees &= (key > query - scores["window"]) | (key < scores["sinks"])
    return torch.einsum("hqk,khd->qhd", products.masked_fill(~sees, -torch.inf).softmax(-1), values)


def scores_of(kind, query_heads, head_size, window=0, sinks=0):
    slopes = torch.rand(query_heads) / 8 if kind == "alibi" else None
    return {
        "SCORES": kind,
        "slopes": slopes,
        "soft_cap": 3.0,
        "scale": 2 * head_size**-0.5,
        "window": window,
        "sinks": sinks,
        "value_scale": 1.0,
    }


def attend_generation(cache, queries, dtype, cache_dtype, scores, splits):
    sequences, query_heads, head_size = queries.shape
    output = poisoned(sequences, query_heads, head_size, dtype=dtype)
    parts = poisoned(sequences, query_heads, splits, head_size, dtype="fp32")
    sums = poisoned(sequences, query_heads, splits, dtype="fp32")
    arguments = {
        "output": output,
        "partial_output": parts,
        "partial_sum": sums,
        "queries": queries,
        "lengths": torch.tensor(cache.lengths, dtype=torch.int32),
        "sequences": sequences,
        "query_heads": query_heads,
        "splits": splits,
        **cache.arguments(),
        **scores,
    }
    kind = arguments.pop("SCORES")
    run(
        GENERATION_ATTENTION,
        {"dtype": dtype, "cache": cache_dtype},
        {"HEAD_SIZE": head_size, "SCORES": kind},
        arguments,
    )
    if splits > 1:
        assert output.isnan().all()
        run(
            COMBINE_ATTENTION,
            {"dtype": dtype},
            {"HEAD_SIZE": head_size},
            {
                "output": output,
                "partial_output": parts,
                "partial_sum": sums,
                "rows": sequences * query_heads,
                "splits": splits,
            },
        )
    return output


@pytest.mark.parametrize(
    ("dtype", "head_size", "query_heads", "kv_heads", "kind", "window", "sinks", "splits"),
    [
        ("bf16", 64, 9, 3, "plain", 0, 0, 1),
        ("fp16", 128, 8, 2, "plain", 0, 0, 3),
        ("bf16", 80, 4, 4, "soft_cap", 0, 0, 2),
        ("fp16", 96, 4, 1, "alibi", 0, 0, 1),
        ("fp16", 64, 20, 1, "plain", 20, 0, 2),  # more query heads than one program takes
        ("bf16", 256, 2, 1, "soft_cap", 33, 4, 1),
        ("fp16", 64, 4, 2, "alibi", 70, 3, 5),
    ],
)
def test_generation_attention(dtype, head_size, query_heads, kv_heads, kind, window, sinks, splits):
    cache = PagedCache([1, 130, 64, 75], kv_heads, head_size, dtype).fill()
    queries = torch.randn(4, query_heads, head_size).to(DTYPES[dtype])
    scores = scores_of(kind, query_heads, head_size, window, sinks)
    output = attend_generation(cache, queries, dtype, dtype, scores, splits)
    for sequence in range(4):
        reference = attention(queries[sequence : sequence + 1], cache, sequence, scores)
        assert error(output[sequence : sequence + 1], reference) < 2 * TOLERANCES[dtype]


def test_generation_attention_over_an_8_bit_cache():
    cache = PagedCache([40, 90], 2, 64, "fp8e4nv").fill()
    queries = torch.randn(2, 4, 64).to(torch.bfloat16)
    scores = scores_of("plain", 4, 64) | {"value_scale": 0.5}
    output = attend_generation(cache, queries, "bf16", "fp8e4nv", scores, 1)
    for sequence in range(2):
        reference = attention(queries[sequence : sequence + 1], cache, sequence, scores) * 0.5
        assert error(output[sequence : sequence + 1], reference) < 2 * TOLERANCES["bf16"]


@pytest.mark.parametrize(
    ("dtype", "head_size", "query_heads", "kv_heads", "kind", "window", "sinks", "interleaved", "rotary_size"),
    [
        ("bf16", 64, 9, 3, "plain", 0, 0, False, 64),
        ("fp16", 80, 20, 1, "plain", 20, 2, True, 32),  # more query heads than one program takes
        ("fp16", 64, 4, 2, "alibi", 0, 0, False, 0),
        ("bf16", 128, 2, 1, "soft_cap", 33, 0, False, 64),
    ],
)
def test_rotate_and_attend(dtype, head_size, query_heads, kv_heads, kind, window, sinks, interleaved, rotary_size):
    lengths = [1, 130, 64]
    cache = PagedCache(lengths, kv_heads, head_size, dtype).fill()
    before = cache.keys.clone()
    qkv = torch.randn(3, query_heads + 2 * kv_heads, head_size).to(DTYPES[dtype])
    angles = torch.rand(130, max(rotary_size // 2, 1)) * 6
    cos_sin = torch.cat([angles.cos(), angles.sin()], 1)
    scores = scores_of(kind, query_heads, head_size, window, sinks)
    output = poisoned(3, query_heads, head_size, dtype=dtype)
    arguments = {
        "output": output,
        "partial_output": None,
        "partial_sum": None,
        "qkv": qkv,
        "cos_sin": cos_sin,
        "lengths": torch.tensor(lengths, dtype=torch.int32),
        "sequences": 3,
        "query_heads": query_heads,
        "splits": 1,
        "rotary_size": rotary_size,
        "key_scale": 1.0,
        **cache.arguments(),
        **scores,
    }
    keys = {"HEAD_SIZE": head_size, "SCORES": arguments.pop("SCORES"), "INTERLEAVED": interleaved}
    run(ROTATE_AND_ATTEND, {"dtype": dtype, "cache": dtype}, keys, arguments)
    for sequence, length in enumerate(lengths):
        turned = rotated(qkv[sequence].double(), length - 1, cos_sin[:, :rotary_size], interleaved)
        block, slot = cache.place(sequence, length - 1)
        assert error(cache.keys[block, slot], turned[query_heads : query_heads + kv_heads]) < TOLERANCES[dtype]
        assert torch.equal(cache.values[block, slot], qkv[sequence, query_heads + kv_heads :])
        before[block, slot] = cache.keys[block, slot]
        reference = attention(turned[None, :query_heads].to(DTYPES[dtype]), cache, sequence, scores)
        assert error(output[sequence : sequence + 1], reference) < 2 * TOLERANCES[dtype]
    assert torch.equal(cache.keys.nan_to_num(7.0), before.nan_to_num(7.0))  # nothing else was written


@pytest.mark.parametrize(
    ("dtype", "head_size", "query_heads", "kv_heads", "kind", "window", "sinks"),
    [
        ("bf16", 64, 3, 1, "plain", 0, 0),
        ("fp16", 128, 4, 2, "soft_cap", 0, 0),
        ("fp16", 80, 2, 2, "alibi", 0, 0),
        ("fp16", 64, 2, 1, "plain", 30, 0),
        ("bf16", 64, 2, 2, "plain", 70, 5),
        ("fp16", 256, 2, 1, "alibi", 40, 70),
    ],
)
def test_context_attention(dtype, head_size, query_heads, kv_heads, kind, window, sinks):
    chunks, lengths = [140, 1, 70, 20], [140, 30, 270, 20]
    cache = PagedCache(lengths, kv_heads, head_size, dtype).fill()
    queries = torch.randn(sum(chunks), query_heads, head_size).to(DTYPES[dtype])
    output = poisoned(*queries.shape, dtype=dtype)
    first = [sum(chunks[:i]) for i in range(len(chunks) + 1)]
    scores = scores_of(kind, query_heads, head_size, window, sinks)
    arguments = {
        "output": output,
        "queries": queries,
        "first_query": torch.tensor(first, dtype=torch.int32),
        "lengths": torch.tensor(lengths, dtype=torch.int32),
        "sequences": len(chunks),
        "longest_chunk": max(chunks),
        "query_heads": query_heads,
        **cache.arguments(),
        **scores,
    }
    keys = {"HEAD_SIZE": head_size, "SCORES": arguments.pop("SCORES")}
    run(CONTEXT_ATTENTION, {"dtype": dtype, "cache": dtype}, keys, arguments)
    for sequence, (begin, end) in enumerate(zip(first, first[1:], strict=False)):
        reference = attention(queries[begin:end], cache, sequence, scores)
        assert error(output[begin:end], reference) < 2 * TOLERANCES[dtype]
