"""Rows of an embedding table."""

import triton
import triton.language as tl

from inflight.kernels.compiler.declaration import Kernel, Tile


@triton.jit
def embedding(output, table, ids, tokens, size, first_id, num_ids, scale, TILE: tl.constexpr):
    """The embedding of each token, times scale. An id outside the table's range gives zeros, as tensor parallel
    ranks, which hold a range each and add up their results, need it."""
    token = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * TILE + tl.arange(0, TILE)
    row = tl.load(ids + token).to(tl.int64) - first_id
    held = (row >= 0) & (row < num_ids)
    x = tl.load(table + row * size + columns, mask=held & (columns < size), other=0.0)
    y = (x.to(tl.float32) * scale).to(output.dtype.element_ty)
    tl.store(output + token * size + columns, y, mask=columns < size)


EMBEDDING = Kernel(
    embedding,
    arguments={
        "output": ("dtype* % 16", "[tokens, size]"),
        "table": ("const dtype* % 16", "[num_ids, size]"),
        "ids": ("const i32*", "[tokens]"),
        "tokens": ("i32", ""),
        "size": ("i32 % 16", "of an embedding"),
        "first_id": ("i32", "of the table's first row"),
        "num_ids": ("i32", "rows of the table"),
        "scale": ("fp32", "1, or what the model multiplies its embeddings with"),
    },
    grid=("tokens", "cdiv(size, TILE)", "1"),
    types={"dtype": ("bf16", "fp16")},
    tiles=[Tile({"TILE": 1024}, num_warps=4)],
)
