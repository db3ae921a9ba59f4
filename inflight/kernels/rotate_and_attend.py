"""Generation attention with what comes before it: rotary embedding of queries and key, and the write into the cache."""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from inflight.kernels.attention_scores import adjusted_scores
from inflight.kernels.compiler.declaration import Kernel
from inflight.kernels.generation_attention import (
    CACHE,
    GENERATION_ATTENTION,
    QUERY_ROWS,
    SCORE_ARGUMENTS,
    attend_cached_keys,
    store_part,
)


@triton.jit
def turned(x, other, cos, sin, i, rotary_size, INTERLEAVED: tl.constexpr):
    """Values x of a head, turned with their partners `other`."""
    is_first = (i % 2 == 0) if INTERLEAVED else (i < rotary_size // 2)
    return tl.where(i < rotary_size, x * cos + tl.where(is_first, -other, other) * sin, x)


@triton.jit
def rotate_and_attend(
    output,
    partial_output,
    partial_sum,
    qkv,
    key_cache,
    value_cache,
    cos_sin,
    block_table,
    lengths,
    slopes,
    table_stride,
    block_stride,
    token_stride,
    head_stride,
    block_shift,
    sequences,
    query_heads,
    kv_heads,
    splits,
    rotary_size,
    window,
    sinks,
    scale,
    soft_cap,
    key_scale,
    value_scale,
    HEAD_SIZE: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    SCORES: tl.constexpr,
    PDL: tl.constexpr,
    PADDED_SIZE: tl.constexpr,
    KEYS: tl.constexpr,
):
    """generation_attention of tokens that rotate_and_cache has not seen. The first split adds the token's own key, and
    writes it into the cache; all splits share the keys before it."""
    if PDL:
        gdc_launch_dependents()
    sequence = tl.program_id(0)
    group = query_heads // kv_heads
    groups = tl.cdiv(group, QUERY_ROWS)  # programs that share a KV head
    kv_head = tl.program_id(1) // groups
    split = tl.program_id(2)

    # The token sees the first `sinks` keys and the last `window` ones: seen key j stands at position j, or after the
    # sinks at j + skipped. The last one is its own.
    length = tl.load(lengths + sequence)
    skipped = tl.where(window > 0, tl.maximum(length - window - sinks, 0), 0)
    seen = length - 1 - skipped
    part = tl.cdiv(tl.cdiv(seen, splits), KEYS) * KEYS
    first = split * part
    last = tl.minimum(first + part, seen)

    i = tl.arange(0, PADDED_SIZE)
    inside = i < HEAD_SIZE
    if INTERLEAVED:
        partner = i ^ 1
        angle = i // 2
    else:
        partner = tl.where(i < rotary_size // 2, i + rotary_size // 2, i - rotary_size // 2)
        angle = tl.where(i < rotary_size // 2, i, i - rotary_size // 2)
    turns = i < rotary_size
    angles = cos_sin + (length - 1).to(tl.int64) * rotary_size + angle
    cos = tl.load(angles, mask=turns, other=1.0)
    sin = tl.load(angles + rotary_size // 2, mask=turns, other=0.0)
    table = block_table + sequence.to(tl.int64) * table_stride
    slope = tl.zeros([QUERY_ROWS], tl.float32)
    row = tl.arange(0, QUERY_ROWS)
    head_in_group = (tl.program_id(1) % groups) * QUERY_ROWS + row
    is_head = head_in_group < group
    head = kv_head * group + head_in_group
    if SCORES == "alibi":
        slope = tl.load(slopes + head, mask=is_head, other=0.0)
    if PDL:
        gdc_wait()

    token = qkv + sequence.to(tl.int64) * (query_heads + 2 * kv_heads) * HEAD_SIZE
    heads = token + head[:, None] * HEAD_SIZE
    mask = is_head[:, None] & inside[None, :]
    query = turned(
        tl.load(heads + i[None, :], mask=mask, other=0.0).to(tl.float32),
        tl.load(heads + partner[None, :], mask=mask & turns[None, :], other=0.0).to(tl.float32),
        cos[None, :], sin[None, :], i[None, :], rotary_size, INTERLEAVED
    ).to(qkv.dtype.element_ty)  # fmt: skip
    keys_of_head = key_cache + kv_head * head_stride
    values_of_head = value_cache + kv_head * head_stride
    highest, total, sum_of_values = attend_cached_keys(
        query, keys_of_head, values_of_head, table, block_stride, token_stride, block_shift, first, last, sinks,
        skipped, length, scale, soft_cap, slope, HEAD_SIZE, SCORES, PADDED_SIZE, KEYS
    )  # fmt: skip

    if split == 0:
        key_row = token + (query_heads + kv_head) * HEAD_SIZE
        key = turned(
            tl.load(key_row + i, mask=inside, other=0.0).to(tl.float32),
            tl.load(key_row + partner, mask=inside & turns, other=0.0).to(tl.float32),
            cos, sin, i, rotary_size, INTERLEAVED
        )  # fmt: skip
        value = tl.load(key_row + kv_heads * HEAD_SIZE + i, mask=inside, other=0.0).to(tl.float32)
        key = (key / key_scale).to(key_cache.dtype.element_ty)
        value = (value / value_scale).to(value_cache.dtype.element_ty)
        if tl.program_id(1) % groups == 0:
            position = length - 1
            block = tl.load(table + (position >> block_shift)).to(tl.int64)
            place = block * block_stride + (position & ((1 << block_shift) - 1)) * token_stride
            tl.store(keys_of_head + place + i, key, mask=inside)
            tl.store(values_of_head + place + i, value, mask=inside)
        products = tl.sum(query.to(tl.float32) * key.to(tl.float32)[None, :], 1)
        score = tl.sum(adjusted_scores(products[:, None], scale, soft_cap, slope, tl.zeros([1], tl.int32), SCORES), 1)
        new_highest = tl.maximum(highest, score)
        weight = tl.exp2(score - new_highest)
        faded = tl.exp2(highest - new_highest)
        sum_of_values = sum_of_values * faded[:, None] + weight[:, None] * value.to(tl.float32)[None, :]
        total = total * faded + weight
        highest = new_highest
    query_row = sequence.to(tl.int64) * query_heads + head
    store_part(
        output, partial_output, partial_sum, highest, total, sum_of_values, value_scale, query_row, is_head, split,
        splits, HEAD_SIZE, PADDED_SIZE
    )  # fmt: skip


_ATTENTION = GENERATION_ATTENTION.arguments

ROTATE_AND_ATTEND = Kernel(
    rotate_and_attend,
    arguments={
        **{name: _ATTENTION[name] for name in ("output", "partial_output", "partial_sum")},
        "qkv": ("const dtype* % 16", "[sequences, query_heads + 2 kv_heads, head_size]"),
        "key_cache": ("cache* % 16", "one layer's keys, by the strides below"),
        "value_cache": ("cache* % 16", "one layer's values"),
        "cos_sin": ("const fp32*", "[positions, rotary_size]: cosines, then sines; null where rotary_size is 0"),
        **CACHE,
        **{name: _ATTENTION[name] for name in ("sequences", "query_heads", "kv_heads", "splits")},
        "rotary_size": ("i32", "values of a head that turn; even"),
        **{name: SCORE_ARGUMENTS[name] for name in ("window", "sinks", "scale", "soft_cap")},
        "key_scale": ("fp32", "1 unless the cache is quantized"),
        "value_scale": SCORE_ARGUMENTS["value_scale"],
    },
    grid=GENERATION_ATTENTION.grid,
    types=GENERATION_ATTENTION.types,
    keys={**GENERATION_ATTENTION.keys, "INTERLEAVED": (False, True)},
    where=GENERATION_ATTENTION.where,
    tiles=GENERATION_ATTENTION.tiles,
    choices=GENERATION_ATTENTION.choices,
)
