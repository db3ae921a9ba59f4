"""Attention of one new token a sequence over the paged cache, and its second stage where the keys were split."""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from inflight.kernels.attention_scores import adjusted_scores
from inflight.kernels.compiler.declaration import Kernel, Tile

QUERY_ROWS = tl.constexpr(16)  # query heads of a program: the fewest rows that a matrix unit multiplies


@triton.jit
def attend_cached_keys(
    query,
    keys_of_head,
    values_of_head,
    table,
    block_stride,
    token_stride,
    block_shift,
    first,
    last,
    sinks,
    skipped,
    length,
    scale,
    soft_cap,
    slope,
    HEAD_SIZE: tl.constexpr,
    SCORES: tl.constexpr,
    PADDED_SIZE: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Highest score, sum of weights and sum of weighted values of the seen keys first .. last - 1."""
    i = tl.arange(0, PADDED_SIZE)
    in_block = (1 << block_shift) - 1
    highest = tl.full([QUERY_ROWS], -1e30, tl.float32)
    total = tl.zeros([QUERY_ROWS], tl.float32)
    sum_of_values = tl.zeros([QUERY_ROWS, PADDED_SIZE], tl.float32)
    for start in range(first, last, KEYS):
        j = start + tl.arange(0, KEYS)
        is_key = j < last
        position = j + tl.where(j >= sinks, skipped, 0)
        block = tl.load(table + (position >> block_shift), mask=is_key, other=0).to(tl.int64)
        place = block * block_stride + (position & in_block) * token_stride
        mask = is_key[:, None] & (i < HEAD_SIZE)[None, :]
        key = tl.load(keys_of_head + place[:, None] + i[None, :], mask=mask, other=0.0).to(query.dtype)
        score = adjusted_scores(tl.dot(query, tl.trans(key)), scale, soft_cap, slope, position - (length - 1), SCORES)
        score = tl.where(is_key[None, :], score, -1e30)
        new_highest = tl.maximum(highest, tl.max(score, 1))
        weight = tl.exp2(score - new_highest[:, None])
        faded = tl.exp2(highest - new_highest)
        value = tl.load(values_of_head + place[:, None] + i[None, :], mask=mask, other=0.0).to(query.dtype)
        sum_of_values = tl.dot(weight.to(query.dtype), value, sum_of_values * faded[:, None])
        total = total * faded + tl.sum(weight, 1)
        highest = new_highest
    return highest, total, sum_of_values


@triton.jit
def store_part(
    output, partial_output, partial_sum, highest, total, sum_of_values, value_scale, query_row, is_head, split, splits,
    HEAD_SIZE: tl.constexpr, PADDED_SIZE: tl.constexpr
):  # fmt: skip
    """A part's result: to output, or with several splits to partial_*."""
    i = tl.arange(0, PADDED_SIZE)
    store = is_head[:, None] & (i < HEAD_SIZE)[None, :]
    result = sum_of_values * (value_scale / tl.maximum(total, 1e-30))[:, None]
    if splits == 1:
        at = output + query_row[:, None] * HEAD_SIZE + i[None, :]
        tl.store(at, result.to(output.dtype.element_ty), mask=store)
    else:
        part_row = query_row * splits + split
        tl.store(partial_output + part_row[:, None] * HEAD_SIZE + i[None, :], result, mask=store)
        tl.store(partial_sum + part_row, highest + tl.log2(tl.maximum(total, 1e-30)), mask=is_head)


@triton.jit
def generation_attention(
    output,
    partial_output,
    partial_sum,
    queries,
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
    query_heads,
    kv_heads,
    splits,
    window,
    sinks,
    scale,
    soft_cap,
    value_scale,
    HEAD_SIZE: tl.constexpr,
    SCORES: tl.constexpr,
    PDL: tl.constexpr,
    PADDED_SIZE: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Softmax attention of each sequence's last token. A program takes the query heads of one KV head, up to 16, and
    one of `splits` parts of the keys that the token sees. With one part the result goes to `output`; with several,
    each part's result and the logarithm of its sum go to `partial_*`, for combine_attention.
    """
    sequence = tl.program_id(0)
    group = query_heads // kv_heads
    groups = tl.cdiv(group, QUERY_ROWS)  # programs that share a KV head
    kv_head = tl.program_id(1) // groups
    split = tl.program_id(2)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()

    # The token sees the first `sinks` keys and the last `window` ones: seen key j stands at position j, or after the
    # sinks at j + skipped.
    length = tl.load(lengths + sequence)
    skipped = tl.where(window > 0, tl.maximum(length - window - sinks, 0), 0)
    seen = length - skipped
    part = tl.cdiv(tl.cdiv(seen, splits), KEYS) * KEYS
    first = split * part
    last = tl.minimum(first + part, seen)

    row = tl.arange(0, QUERY_ROWS)
    head_in_group = (tl.program_id(1) % groups) * QUERY_ROWS + row
    is_head = head_in_group < group
    head = kv_head * group + head_in_group
    i = tl.arange(0, PADDED_SIZE)
    query_row = sequence.to(tl.int64) * query_heads + head
    query = tl.load(
        queries + query_row[:, None] * HEAD_SIZE + i[None, :],
        mask=is_head[:, None] & (i < HEAD_SIZE)[None, :],
        other=0.0,
    )
    slope = tl.zeros([QUERY_ROWS], tl.float32)
    if SCORES == "alibi":
        slope = tl.load(slopes + head, mask=is_head, other=0.0)

    keys_of_head = key_cache + kv_head * head_stride
    values_of_head = value_cache + kv_head * head_stride
    table = block_table + sequence.to(tl.int64) * table_stride
    highest, total, sum_of_values = attend_cached_keys(
        query, keys_of_head, values_of_head, table, block_stride, token_stride, block_shift, first, last, sinks,
        skipped, length, scale, soft_cap, slope, HEAD_SIZE, SCORES, PADDED_SIZE, KEYS
    )  # fmt: skip
    store_part(
        output, partial_output, partial_sum, highest, total, sum_of_values, value_scale, query_row, is_head, split,
        splits, HEAD_SIZE, PADDED_SIZE
    )  # fmt: skip


@triton.jit
def combine_attention(
    output,
    partial_output,
    partial_sum,
    rows,
    splits,
    HEAD_SIZE: tl.constexpr,
    PDL: tl.constexpr,
    PADDED_SIZE: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """The second stage of generation_attention: the parts' results, weighted by their sums."""
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    split = tl.arange(0, SPLITS)
    i = tl.arange(0, PADDED_SIZE)
    log_sum = tl.load(partial_sum + row * splits + split, mask=split < splits, other=-1e30)
    weight = tl.exp2(log_sum - tl.max(log_sum, 0))
    mask = (split < splits)[:, None] & (i < HEAD_SIZE)[None, :]
    part = tl.load(partial_output + (row * splits + split)[:, None] * HEAD_SIZE + i[None, :], mask=mask, other=0.0)
    result = tl.sum(part * weight[:, None], 0) / tl.sum(weight, 0)
    tl.store(output + row * HEAD_SIZE + i, result.to(output.dtype.element_ty), mask=i < HEAD_SIZE)


HEAD_SIZES = (64, 80, 96, 128, 256)
CACHE = {
    "block_table": ("const i32*", "[sequences, table_stride], blocks of the cache"),
    "lengths": ("const i32*", "[sequences], tokens in the cache, the queries' own among them"),
    "slopes": ("const fp32*", "[query_heads], of ALiBi (arXiv:2108.12409); null without"),
    "table_stride": ("i32", "entries"),
    "block_stride": ("i64 % 16", "of the cache, elements"),
    "token_stride": ("i32 % 16", "of the cache within a block, elements"),
    "head_stride": ("i32 % 16", "of the cache within a block, elements"),
    "block_shift": ("i32", "log2 of the tokens of a block"),
}
SCORE_ARGUMENTS = {
    "window": ("i32", "keys that a token sees, up to its own; 0: all"),
    "sinks": ("i32", "keys at the start that every token sees"),
    "scale": ("fp32", "of the scores, with the scale of quantized keys"),
    "soft_cap": ("fp32", "with scores kSoftCap: cap * tanh(score / cap)"),
    "value_scale": ("fp32", "1 unless the cache is quantized"),
}

GENERATION_ATTENTION = Kernel(
    generation_attention,
    arguments={
        "output": ("dtype* % 16", "[sequences, query_heads, head_size]"),
        "partial_output": ("fp32* % 16", "[sequences, query_heads, splits, head_size]; null with one split"),
        "partial_sum": ("fp32*", "[sequences, query_heads, splits]; null with one split"),
        "queries": ("const dtype* % 16", "[sequences, query_heads, head_size]"),
        "key_cache": ("const cache* % 16", "one layer's keys, by the strides below"),
        "value_cache": ("const cache* % 16", "one layer's values"),
        **CACHE,
        "sequences": ("i32", ""),
        "query_heads": ("i32", ""),
        "kv_heads": ("i32", ""),
        "splits": ("i32", "1 .. 64, see choose_splits()"),
        **SCORE_ARGUMENTS,
    },
    grid=("sequences", "kv_heads * cdiv(query_heads // kv_heads, 16)", "splits"),
    types={"dtype": ("bf16", "fp16"), "cache": ("bf16", "fp16", "fp8e4nv")},
    keys={"HEAD_SIZE": HEAD_SIZES, "SCORES": ("plain", "soft_cap", "alibi")},
    where="cache == dtype or (cache == 'fp8e4nv' and target >= 89 and SCORES == 'plain')",
    tiles=[
        Tile({"PADDED_SIZE": 64, "KEYS": 64}, num_warps=4, num_stages=3, when="HEAD_SIZE <= 64"),
        Tile(
            {"PADDED_SIZE": 128, "KEYS": 64}, num_warps=4, num_stages=2, when="HEAD_SIZE <= 128", targets=(86, 89, 120)
        ),
        Tile(
            {"PADDED_SIZE": 128, "KEYS": 64},
            num_warps=4,
            num_stages=5,
            when="HEAD_SIZE <= 128 and cache == dtype",
            targets=(90, 100, 103),
        ),
        Tile({"PADDED_SIZE": 128, "KEYS": 64}, num_warps=4, num_stages=3, when="HEAD_SIZE <= 128"),
        Tile(
            {"PADDED_SIZE": 256, "KEYS": 32}, num_warps=4, num_stages=2, when="HEAD_SIZE <= 256", targets=(86, 89, 120)
        ),
        Tile({"PADDED_SIZE": 256, "KEYS": 64}, num_warps=4, num_stages=2, when="HEAD_SIZE <= 256"),
    ],
    choices={"splits": "max(1, min(32, 264 // (sequences * kv_heads)))"},
)

COMBINE_ATTENTION = Kernel(
    combine_attention,
    arguments={
        "output": ("dtype* % 16", "[rows, head_size]"),
        "partial_output": ("const fp32* % 16", "[rows, splits, head_size]"),
        "partial_sum": ("const fp32*", "[rows, splits]"),
        "rows": ("i32", "sequences * query_heads"),
        "splits": ("i32", ""),
    },
    grid=("rows", "1", "1"),
    types={"dtype": ("bf16", "fp16")},
    keys={"HEAD_SIZE": HEAD_SIZES},
    tiles=[
        Tile({"PADDED_SIZE": size, "SPLITS": splits}, num_warps=4, when=f"HEAD_SIZE <= {size} and splits <= {splits}")
        for size in (64, 128, 256)
        for splits in (8, 64)
    ],
)
