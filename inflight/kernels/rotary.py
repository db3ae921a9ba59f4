"""What happens to queries, keys and values between their projection and attention."""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from inflight.kernels.compiler.declaration import Kernel, Tile


@triton.jit
def rotate_and_cache(
    queries,
    key_cache,
    value_cache,
    qkv,
    query_norm,
    key_norm,
    cos_sin,
    positions,
    sequences,
    block_table,
    table_stride,
    block_stride,
    token_stride,
    head_stride,
    block_shift,
    tokens,
    query_heads,
    kv_heads,
    rotary_size,
    epsilon,
    key_scale,
    value_scale,
    HEAD_SIZE: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    NORMALIZE: tl.constexpr,
    PDL: tl.constexpr,
    PADDED_SIZE: tl.constexpr,
    HEADS: tl.constexpr,
    HALVES: tl.constexpr,
):
    """Rotary position embedding (RoFormer, arXiv:2104.09864) of queries and keys, with NORMALIZE after an RMSNorm of
    each head (Qwen3). Queries go to `queries`, keys and values to the paged cache, divided by their scales.

    The first rotary_size values of a head turn; pairs are (i, i + rotary_size / 2), or (2i, 2i + 1) with INTERLEAVED.
    """
    if PDL:
        gdc_launch_dependents()
    token = tl.program_id(0).to(tl.int64)
    position = tl.load(positions + token)
    sequence = tl.load(sequences + token).to(tl.int64)
    block = tl.load(block_table + sequence * table_stride + (position >> block_shift)).to(tl.int64)
    place = block * block_stride + (position & ((1 << block_shift) - 1)).to(tl.int64) * token_stride

    heads = tl.program_id(1) * HEADS + tl.arange(0, HEADS)[:, None]
    is_query = heads < query_heads
    is_value = heads >= query_heads + kv_heads
    is_key = (heads >= query_heads) & (heads < query_heads + kv_heads)
    if HALVES:  # whole heads turn: each value is read once, and each angle once for its pair
        HALF: tl.constexpr = HEAD_SIZE // 2
        i = tl.arange(0, HALF)[None, :]
        inside = (heads < query_heads + 2 * kv_heads) & (i < HALF)
        turns = inside & (is_query | is_key)
        angle = cos_sin + position.to(tl.int64) * HEAD_SIZE + i
        cos = tl.load(angle, mask=turns, other=1.0)
        sin = tl.load(angle + HALF, mask=turns, other=0.0)
        if PDL:
            gdc_wait()
        row = qkv + (token * (query_heads + 2 * kv_heads) + heads) * HEAD_SIZE + i
        first = tl.load(row, mask=inside, other=0.0).to(tl.float32)
        second = tl.load(row + HALF, mask=inside, other=0.0).to(tl.float32)
        if NORMALIZE:
            sum_of_squares = tl.sum(first * first + second * second, 1)[:, None]
            deviation = tl.rsqrt(sum_of_squares / HEAD_SIZE + epsilon)
            weight = tl.where(is_query, query_norm, key_norm) + i
            first = tl.where(is_value, first, first * deviation * tl.load(weight, mask=inside, other=0.0))
            second = tl.where(is_value, second, second * deviation * tl.load(weight + HALF, mask=inside, other=0.0))
        y = first * cos - second * sin
        z = second * cos + first * sin
        query = queries + (token * query_heads + heads) * HEAD_SIZE + i
        tl.store(query, y.to(queries.dtype.element_ty), mask=inside & is_query)
        tl.store(query + HALF, z.to(queries.dtype.element_ty), mask=inside & is_query)
        kv_head = (heads - query_heads).to(tl.int64)
        key = key_cache + place + kv_head * head_stride + i
        tl.store(key, (y / key_scale).to(key_cache.dtype.element_ty), mask=inside & is_key)
        tl.store(key + HALF, (z / key_scale).to(key_cache.dtype.element_ty), mask=inside & is_key)
        value = value_cache + place + (kv_head - kv_heads) * head_stride + i
        tl.store(value, (y / value_scale).to(value_cache.dtype.element_ty), mask=inside & is_value)
        tl.store(value + HALF, (z / value_scale).to(value_cache.dtype.element_ty), mask=inside & is_value)
    else:
        i = tl.arange(0, PADDED_SIZE)[None, :]
        inside = (heads < query_heads + 2 * kv_heads) & (i < HEAD_SIZE)

        half = rotary_size // 2
        turns = (i < rotary_size) & (is_query | is_key)
        if INTERLEAVED:
            partner = i ^ 1
            angle = i // 2
            is_first = i % 2 == 0
        else:
            partner = tl.where(i < half, i + half, i - half)
            angle = tl.where(i < half, i, i - half)
            is_first = i < half
        at = cos_sin + position.to(tl.int64) * rotary_size + angle
        cos = tl.load(at, mask=turns, other=1.0)
        sin = tl.load(at + half, mask=turns, other=0.0)
        if PDL:
            gdc_wait()
        row = qkv + (token * (query_heads + 2 * kv_heads) + heads) * HEAD_SIZE
        x = tl.load(row + i, mask=inside, other=0.0).to(tl.float32)
        other = tl.load(row + partner, mask=inside & turns, other=0.0).to(tl.float32)
        if NORMALIZE:
            deviation = tl.rsqrt(tl.sum(x * x, 1)[:, None] / HEAD_SIZE + epsilon)
            weight = tl.where(is_query, query_norm, key_norm)
            x = tl.where(is_value, x, x * deviation * tl.load(weight + i, mask=inside, other=0.0))
            other = other * deviation * tl.load(weight + partner, mask=inside & turns, other=0.0)
        y = tl.where(turns, x * cos + tl.where(is_first, -other, other) * sin, x)

        query = queries + (token * query_heads + heads) * HEAD_SIZE + i
        tl.store(query, y.to(queries.dtype.element_ty), mask=inside & is_query)
        kv_head = heads - query_heads
        key = key_cache + place + kv_head.to(tl.int64) * head_stride + i
        tl.store(key, (y / key_scale).to(key_cache.dtype.element_ty), mask=inside & is_key)
        value = value_cache + place + (kv_head - kv_heads).to(tl.int64) * head_stride + i
        tl.store(value, (y / value_scale).to(value_cache.dtype.element_ty), mask=inside & is_value)


_SIZES_OF_HEADS = (64, 80, 96, 128, 256)

ROTATE_AND_CACHE = Kernel(
    rotate_and_cache,
    arguments={
        "queries": ("dtype* % 16", "[tokens, query_heads, head_size]"),
        "key_cache": ("cache* % 16", "one layer's keys, by the strides below"),
        "value_cache": ("cache* % 16", "one layer's values"),
        "qkv": ("const dtype* % 16", "[tokens, query_heads + 2 kv_heads, head_size]"),
        "query_norm": ("const fp32* % 16", "[head_size]; null unless normalize"),
        "key_norm": ("const fp32* % 16", "[head_size]; null unless normalize"),
        "cos_sin": ("const fp32*", "[positions, rotary_size]: cosines, then sines; null where rotary_size is 0"),
        "positions": ("const i32*", "[tokens], of each token in its sequence"),
        "sequences": ("const i32*", "[tokens], each token's row of block_table"),
        "block_table": ("const i32*", "[sequences, table_stride]"),
        "table_stride": ("i32", "entries"),
        "block_stride": ("i64 % 16", "of the cache, elements"),
        "token_stride": ("i32 % 16", "of the cache within a block, elements"),
        "head_stride": ("i32 % 16", "of the cache within a block, elements"),
        "block_shift": ("i32", "log2 of the tokens of a block"),
        "tokens": ("i32", ""),
        "query_heads": ("i32", ""),
        "kv_heads": ("i32", ""),
        "rotary_size": ("i32", "values of a head that turn; even"),
        "epsilon": ("fp32", "of the norms"),
        "key_scale": ("fp32", "1 unless the cache is quantized"),
        "value_scale": ("fp32", "1 unless the cache is quantized"),
    },
    grid=("tokens", "cdiv(query_heads + 2 * kv_heads, HEADS)", "1"),
    types={"dtype": ("bf16", "fp16"), "cache": ("bf16", "fp16", "fp8e4nv")},
    keys={"HEAD_SIZE": _SIZES_OF_HEADS, "INTERLEAVED": (False, True), "NORMALIZE": (False, True)},
    where="cache == dtype or (cache == 'fp8e4nv' and target >= 89)",
    tiles=[
        *(
            Tile(
                {"PADDED_SIZE": size, "HEADS": 1024 // size, "HALVES": True},
                num_warps=4,
                when=f"HEAD_SIZE == {size} and not INTERLEAVED and rotary_size == {size}",
            )
            for size in (64, 128, 256)
        ),
        Tile({"PADDED_SIZE": 64, "HEADS": 8, "HALVES": False}, num_warps=4, when="HEAD_SIZE <= 64"),
        Tile({"PADDED_SIZE": 128, "HEADS": 8, "HALVES": False}, num_warps=4, when="HEAD_SIZE <= 128"),
        Tile({"PADDED_SIZE": 256, "HEADS": 4, "HALVES": False}, num_warps=4, when="HEAD_SIZE <= 256"),
    ],
)
