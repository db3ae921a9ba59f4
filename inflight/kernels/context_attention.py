"""Causal attention of prompt chunks over the paged cache, which already holds the chunks' own keys and values."""

import triton
import triton.language as tl

from inflight.kernels.attention_scores import adjusted_scores
from inflight.kernels.compiler.declaration import Kernel, Tile
from inflight.kernels.generation_attention import CACHE, HEAD_SIZES, SCORE_ARGUMENTS


@triton.jit
def attend_keys(
    state,
    query,
    query_position,
    keys_of_head,
    values_of_head,
    table,
    block_stride,
    token_stride,
    block_shift,
    position,
    end,
    window,
    sinks,
    scale,
    soft_cap,
    slope,
    HEAD_SIZE: tl.constexpr,
    SCORES: tl.constexpr,
    PADDED_SIZE: tl.constexpr,
    MASKED: tl.constexpr,
):
    """One tile of keys in the running softmax: (highest score, sum of weights, sum of weighted values)."""
    highest, total, sum_of_values = state
    i = tl.arange(0, PADDED_SIZE)
    if MASKED:
        is_key = position < end
        block = tl.load(table + (position >> block_shift), mask=is_key, other=0).to(tl.int64)
        mask = is_key[:, None] & (i < HEAD_SIZE)[None, :]
    else:
        block = tl.load(table + (position >> block_shift)).to(tl.int64)
        mask = (i < HEAD_SIZE)[None, :]
    place = block * block_stride + (position & ((1 << block_shift) - 1)) * token_stride
    at = place[:, None] + i[None, :]
    key = tl.load(keys_of_head + at, mask=mask, other=0.0).to(query.dtype)
    distance = position[None, :] - query_position[:, None]
    score = adjusted_scores(tl.dot(query, tl.trans(key)), scale, soft_cap, slope, distance, SCORES)
    if MASKED:
        sees = (distance <= 0) & ((window == 0) | (distance > -window) | (position < sinks)[None, :])
        score = tl.where(sees, score, -1e30)
    new_highest = tl.maximum(highest, tl.max(score, 1))
    weight = tl.exp2(score - new_highest[:, None])
    if MASKED:  # where a token sees nothing of this tile yet, its scores must not count as the highest
        weight = tl.where(sees, weight, 0.0)
    faded = tl.exp2(highest - new_highest)
    value = tl.load(values_of_head + at, mask=mask, other=0.0).to(query.dtype)
    sum_of_values = tl.dot(weight.to(query.dtype), value, sum_of_values * faded[:, None])
    return new_highest, total * faded + tl.sum(weight, 1), sum_of_values


@triton.jit
def context_attention(
    output,
    queries,
    first_query,
    key_cache,
    value_cache,
    block_table,
    lengths,
    slopes,
    table_stride,
    block_stride,
    token_stride,
    head_stride,
    block_shift,
    sequences,
    longest_chunk,
    query_heads,
    kv_heads,
    window,
    sinks,
    scale,
    soft_cap,
    value_scale,
    HEAD_SIZE: tl.constexpr,
    SCORES: tl.constexpr,
    PADDED_SIZE: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Softmax attention of each chunk's tokens: the last ones of their sequence. A program takes QUERIES tokens of one
    chunk and one head."""
    # Long tiles, which see most keys, go first.
    tile = tl.cdiv(longest_chunk, QUERIES) - 1 - tl.program_id(1)
    head, sequence = tl.program_id(0), tl.program_id(2)
    query_begin = tl.load(first_query + sequence)
    num_queries = tl.load(first_query + sequence + 1) - query_begin
    length = tl.load(lengths + sequence)
    if tile * QUERIES < num_queries:
        in_chunk = tile * QUERIES + tl.arange(0, QUERIES)
        query_position = length - num_queries + in_chunk
        i = tl.arange(0, PADDED_SIZE)
        query_row = (query_begin + in_chunk).to(tl.int64) * query_heads + head
        is_query = (in_chunk < num_queries)[:, None] & (i < HEAD_SIZE)[None, :]
        query = tl.load(queries + query_row[:, None] * HEAD_SIZE + i[None, :], mask=is_query, other=0.0)
        slope = tl.zeros([QUERIES], tl.float32)
        if SCORES == "alibi":
            slope += tl.load(slopes + head)

        kv_head = head // (query_heads // kv_heads)
        keys_of_head = key_cache + kv_head * head_stride
        values_of_head = value_cache + kv_head * head_stride
        table = block_table + sequence.to(tl.int64) * table_stride
        # The tile sees keys up to its last token's, from its first token's window on, and the sinks: whole tiles of
        # keys between the sinks and the window are skipped.
        first_position = length - num_queries + tile * QUERIES
        end = tl.minimum(first_position + QUERIES, length)
        window_begin = tl.where(window > 0, tl.maximum(first_position - window + 1, 0), 0)
        sink_end = tl.cdiv(tl.where(window > 0, sinks, 0), KEYS) * KEYS
        skipped = tl.maximum(window_begin // KEYS * KEYS - sink_end, 0)

        # Without a window, every token of the tile sees every key before the tile's first one: nothing to mask.
        unmasked = tl.where(window > 0, 0, (first_position + 1) // KEYS * KEYS)
        state = (
            tl.full([QUERIES], -1e30, tl.float32),
            tl.zeros([QUERIES], tl.float32),
            tl.zeros([QUERIES, PADDED_SIZE], tl.float32),
        )
        for start in range(0, unmasked, KEYS):
            position = start + tl.arange(0, KEYS)
            state = attend_keys(
                state, query, query_position, keys_of_head, values_of_head, table, block_stride, token_stride,
                block_shift, position, end, window, sinks, scale, soft_cap, slope, HEAD_SIZE, SCORES, PADDED_SIZE, False
            )  # fmt: skip
        for start in range(unmasked, end - skipped, KEYS):
            position = start + tl.where(start >= sink_end, skipped, 0) + tl.arange(0, KEYS)
            state = attend_keys(
                state, query, query_position, keys_of_head, values_of_head, table, block_stride, token_stride,
                block_shift, position, end, window, sinks, scale, soft_cap, slope, HEAD_SIZE, SCORES, PADDED_SIZE, True
            )  # fmt: skip
        highest, total, sum_of_values = state
        result = sum_of_values * (value_scale / tl.maximum(total, 1e-30))[:, None]
        at = output + query_row[:, None] * HEAD_SIZE + i[None, :]
        tl.store(at, result.to(output.dtype.element_ty), mask=is_query)


_SMALL = (86, 89, 120)  # targets with 99 KB of shared memory

CONTEXT_ATTENTION = Kernel(
    context_attention,
    arguments={
        "output": ("dtype* % 16", "[tokens, query_heads, head_size]"),
        "queries": ("const dtype* % 16", "[tokens, query_heads, head_size]"),
        "first_query": ("const i32*", "[sequences + 1], each chunk's first token, and the number of tokens"),
        "key_cache": ("const cache* % 16", "one layer's keys, by the strides below"),
        "value_cache": ("const cache* % 16", "one layer's values"),
        **CACHE,
        "sequences": ("i32", ""),
        "longest_chunk": ("i32", "tokens"),
        "query_heads": ("i32", ""),
        "kv_heads": ("i32", ""),
        **SCORE_ARGUMENTS,
    },
    grid=("query_heads", "cdiv(longest_chunk, QUERIES)", "sequences"),
    types={"dtype": ("bf16", "fp16"), "cache": ("bf16", "fp16", "fp8e4nv")},
    keys={"HEAD_SIZE": HEAD_SIZES, "SCORES": ("plain", "soft_cap", "alibi")},
    where="cache == dtype or (cache == 'fp8e4nv' and target >= 89 and SCORES == 'plain')",
    tiles=[
        Tile({"PADDED_SIZE": 64, "QUERIES": 128, "KEYS": 64}, num_warps=4, num_stages=2, when="HEAD_SIZE <= 64"),
        Tile(
            {"PADDED_SIZE": 128, "QUERIES": 64, "KEYS": 64},
            num_warps=4,
            num_stages=2,
            when="HEAD_SIZE <= 128",
            targets=_SMALL,
        ),
        Tile(
            {"PADDED_SIZE": 128, "QUERIES": 64, "KEYS": 64},
            num_warps=4,
            num_stages=3,
            when="HEAD_SIZE <= 128 and longest_chunk <= 64",
        ),
        Tile({"PADDED_SIZE": 128, "QUERIES": 128, "KEYS": 64}, num_warps=8, num_stages=3, when="HEAD_SIZE <= 128"),
        Tile(
            {"PADDED_SIZE": 256, "QUERIES": 64, "KEYS": 32},
            num_warps=4,
            num_stages=1,
            when="HEAD_SIZE <= 256",
            targets=_SMALL,
        ),
        Tile({"PADDED_SIZE": 256, "QUERIES": 64, "KEYS": 64}, num_warps=8, num_stages=2, when="HEAD_SIZE <= 256"),
    ],
)
