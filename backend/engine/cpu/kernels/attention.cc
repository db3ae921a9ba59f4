#include "engine/cpu/kernels/isa_operations.h"
#include "engine/cpu/kernels/vector.h"

namespace inflight::cpu::INFLIGHT_ISA {
namespace {

// What the registers hold: kMaxRows x kMaxVectors sums beside a row of what they are multiplied with.
#if defined(__AVX512F__)
constexpr int kMaxRows = 6, kMaxVectors = 4;
#else
constexpr int kMaxRows = 6, kMaxVectors = 2;
#endif

// c += a · b for a [ROWS, depth], b [depth, VECTORS * kLanes], each with its rows' stride. Every vector of
// b's columns has a pointer of its own, so that one tile may span several blocks of the cache. With
// PREFETCHES, the depth * kLanes floats at each pointer of `ahead` are prefetched meanwhile.
template <int ROWS, int VECTORS, bool PREFETCHES>
void multiply_add_tile(const float* a, int64_t a_stride, const float* const* b, int64_t b_stride,
                       const float* const* ahead, float* c, int64_t c_stride, int64_t depth) {
  const float* columns[VECTORS];
  for (int v = 0; v < VECTORS; ++v) columns[v] = b[v];
  Vector sums[ROWS][VECTORS];
  for (int r = 0; r < ROWS; ++r) {
    for (int v = 0; v < VECTORS; ++v) sums[r][v] = load(c + r * c_stride + v * kLanes);
  }
  for (int64_t k = 0; k < depth; ++k) {
    Vector row[VECTORS];
    for (int v = 0; v < VECTORS; ++v) row[v] = load(columns[v] + k * b_stride);
    if constexpr (PREFETCHES) {
      for (int v = 0; v < VECTORS; ++v) __builtin_prefetch(ahead[v] + k * kLanes);
    }
    for (int r = 0; r < ROWS; ++r) {
      for (int v = 0; v < VECTORS; ++v) sums[r][v] += a[r * a_stride + k] * row[v];
    }
  }
  for (int r = 0; r < ROWS; ++r) {
    for (int v = 0; v < VECTORS; ++v) store(c + r * c_stride + v * kLanes, sums[r][v]);
  }
}

using Tile = void (*)(const float*, int64_t, const float* const*, int64_t, const float* const*, float*, int64_t,
                      int64_t);

#if defined(__AVX512F__)
#define INFLIGHT_TILES(ROWS)                                                       \
  {multiply_add_tile<ROWS, 1, PREFETCHES>, multiply_add_tile<ROWS, 2, PREFETCHES>, \
   multiply_add_tile<ROWS, 3, PREFETCHES>, multiply_add_tile<ROWS, 4, PREFETCHES>}
#else
#define INFLIGHT_TILES(ROWS) {multiply_add_tile<ROWS, 1, PREFETCHES>, multiply_add_tile<ROWS, 2, PREFETCHES>}
#endif

// By rows - 1 and vectors - 1.
template <bool PREFETCHES>
constexpr Tile kTiles[kMaxRows][kMaxVectors] = {INFLIGHT_TILES(1), INFLIGHT_TILES(2), INFLIGHT_TILES(3),
                                                INFLIGHT_TILES(4), INFLIGHT_TILES(5), INFLIGHT_TILES(6)};

// c += a · b for a [rows, depth], b [depth, vectors * kLanes]. `ahead` as above; null prefetches nothing.
void multiply_add_vectors(const float* a, int64_t a_stride, const float* const* b, int64_t b_stride,
                          const float* const* ahead, float* c, int64_t c_stride, int64_t rows, int64_t vectors,
                          int64_t depth) {
  const auto& tiles = ahead == nullptr ? kTiles<false> : kTiles<true>;
  for (int64_t v = 0; v < vectors; v += kMaxVectors) {
    const int64_t num_vectors = vectors - v < kMaxVectors ? vectors - v : kMaxVectors;
    for (int64_t r = 0; r < rows; r += kMaxRows) {
      const int64_t num_rows = rows - r < kMaxRows ? rows - r : kMaxRows;
      tiles[num_rows - 1][num_vectors - 1](a + r * a_stride, a_stride, b + v, b_stride,
                                           ahead == nullptr ? nullptr : ahead + v, c + r * c_stride + v * kLanes,
                                           c_stride, depth);
    }
  }
}

// c += a · b for a [rows, depth], b [depth, columns].
void multiply_add(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* c, int64_t c_stride,
                  int64_t rows, int64_t columns, int64_t depth) {
  int64_t n = 0;
  for (; n + kLanes <= columns; n += kMaxVectors * kLanes) {
    const float* pointers[kMaxVectors];
    int64_t vectors = 0;
    for (; vectors < kMaxVectors && n + (vectors + 1) * kLanes <= columns; ++vectors) {
      pointers[vectors] = b + n + vectors * kLanes;
    }
    multiply_add_vectors(a, a_stride, pointers, b_stride, nullptr, c + n, c_stride, rows, vectors, depth);
  }
  for (n = columns / kLanes * kLanes; n < columns; ++n) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t k = 0; k < depth; ++k) c[r * c_stride + n] += a[r * a_stride + k] * b[k * b_stride + n];
    }
  }
}

void scale_row(const float* x, float factor, int64_t size, float* y) {
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) store(y + i, load(x + i) * factor);
  for (; i < size; ++i) y[i] = x[i] * factor;
}

// One row's running softmax (arXiv:1805.02867).
struct RowState {
  float maximum;
  float sum;
};

// Replaces the scores in [begin, end) by e^(score - maximum) and the others of the chunk by 0, and
// returns the factor by which what was summed up before shrinks.
float online_softmax(float* scores, int32_t begin, int32_t end, RowState& state) {
  const Vector minus_infinity = broadcast(-__builtin_inff());
  const int32_t first = begin / kLanes * kLanes;
  const auto inside = [&](int32_t i) {
    const IntVector index = lane_indices() + i;
    return (index >= begin) & (index < end);
  };

  Vector largest = minus_infinity;
  for (int32_t i = first; i < end; i += kLanes) {
    largest = maximum(largest, inside(i) ? load(scores + i) : minus_infinity);
  }
  const float chunk_maximum = maximum(largest);
  const float new_maximum = chunk_maximum > state.maximum ? chunk_maximum : state.maximum;

  Vector total = {};
  for (int32_t i = 0; i < first; i += kLanes) store(scores + i, Vector{});
  int32_t i = first;
  for (; i < end; i += kLanes) {
    const Vector weights = inside(i) ? exp(load(scores + i) - new_maximum) : Vector{};
    total += weights;
    store(scores + i, weights);
  }
  for (; i < kAttentionChunk; i += kLanes) store(scores + i, Vector{});

  const float shrink = state.sum == 0 ? 0 : exp(broadcast(state.maximum - new_maximum))[0];
  state.sum = state.sum * shrink + sum(total);
  state.maximum = new_maximum;
  return shrink;
}

void fill_zero(float* x, int64_t size) {
  for (int64_t i = 0; i < size; ++i) x[i] = 0;
}

// The chunk's keys that some row sees: positions [position + begin, position + end). Of sink tokens each row sees all
// up to its own position, of others those in its window.
struct Chunk {
  int32_t position;
  int32_t begin;
  int32_t end;
  bool is_sink;
};

// Those of them that lie in one block of the cache.
struct BlockPart {
  const float* keys;    // [head_size, ...] at the first of its keys
  const float* values;  // [..., head_size]
  int32_t begin;        // in the chunk
  int32_t end;
};

BlockPart block_part(const AttentionTile& tile, const Chunk& chunk, int32_t begin) {
  const int32_t position = chunk.position + begin;
  const int32_t offset = position & (tile.tokens_per_block - 1);
  const float* keys = tile.cache + tile.block_ids[position / tile.tokens_per_block] * tile.block_stride;
  const float* values = keys + int64_t(tile.head_size) * tile.tokens_per_block;
  const int32_t left = tile.tokens_per_block - offset;
  const int32_t end = chunk.end - begin < left ? chunk.end : begin + left;
  return {keys + offset, values + int64_t(offset) * tile.head_size, begin, end};
}

// The first position in a token's window.
int32_t first_visible(const AttentionTile& tile, int32_t position) {
  return tile.window > 0 && position >= tile.window ? position - tile.window + 1 : 0;
}

// The tile's rows, one for each token and head, in its scratch memory.
struct Rows {
  int32_t count;
  float* queries;    // [count, head_size], scaled
  float* sums;       // [count, head_size]: values, weighted by e^(score - maximum)
  float* scores;     // [count, kAttentionChunk], and then weights
  RowState* states;  // [count]
};

Rows begin_rows(const AttentionTile& tile) {
  const int32_t count = tile.num_tokens * tile.group_size;
  const int64_t size = int64_t(count) * tile.head_size;
  float* scores = tile.scratch + 2 * size;
  const Rows rows = {count, tile.scratch, tile.scratch + size, scores,
                     reinterpret_cast<RowState*>(scores + int64_t(count) * kAttentionChunk)};
  for (int32_t row = 0; row < count; ++row) {
    const int32_t token = row / tile.group_size, head = row % tile.group_size;
    scale_row(tile.queries + token * tile.query_stride + int64_t(head) * tile.head_size, tile.scale, tile.head_size,
              rows.queries + int64_t(row) * tile.head_size);
    rows.states[row] = {-__builtin_inff(), 0};
  }
  fill_zero(rows.sums, size);
  return rows;
}

// Scores of all rows with the chunk's keys; whole vectors of them where blocks hold such, so that scores
// outside [begin, end) are anything.
void score(const AttentionTile& tile, const Chunk& chunk, const Rows& rows) {
  fill_zero(rows.scores, int64_t(rows.count) * kAttentionChunk);
  if (tile.tokens_per_block >= kLanes) {
    const int32_t first = chunk.begin / kLanes, last = (chunk.end + kLanes - 1) / kLanes;
    const float *keys[kAttentionChunk / kLanes], *values[kAttentionChunk / kLanes];
    for (int32_t v = first; v < last; ++v) {
      const BlockPart part = block_part(tile, chunk, v * kLanes);
      keys[v - first] = part.keys;
      values[v - first] = part.values;
    }
    // One pass over the keys is bound by memory: fetch their values meanwhile.
    const float* const* ahead = rows.count <= kMaxRows ? values : nullptr;
    multiply_add_vectors(rows.queries, tile.head_size, keys, tile.tokens_per_block, ahead, rows.scores + first * kLanes,
                         kAttentionChunk, rows.count, last - first, tile.head_size);
    return;
  }
  for (int32_t begin = chunk.begin; begin < chunk.end;) {
    const BlockPart part = block_part(tile, chunk, begin);
    multiply_add(rows.queries, tile.head_size, part.keys, tile.tokens_per_block, rows.scores + part.begin,
                 kAttentionChunk, rows.count, part.end - part.begin, tile.head_size);
    begin = part.end;
  }
}

// Turns scores into weights, 0 for what a row does not see, and shrinks the sums to match.
void weigh(const AttentionTile& tile, const Chunk& chunk, const Rows& rows) {
  for (int32_t row = 0; row < rows.count; ++row) {
    float* scores = rows.scores + int64_t(row) * kAttentionChunk;
    const int32_t position = tile.first_position + row / tile.group_size;
    const int32_t first = chunk.is_sink ? 0 : first_visible(tile, position) - chunk.position;
    const int32_t last = position - chunk.position;
    const int32_t begin = first > chunk.begin ? first : chunk.begin, end = last < chunk.end ? last + 1 : chunk.end;
    if (begin >= end) {
      fill_zero(scores, kAttentionChunk);
      continue;
    }
    const float shrink = online_softmax(scores, begin, end, rows.states[row]);
    float* sums = rows.sums + int64_t(row) * tile.head_size;
    if (shrink != 1) scale_row(sums, shrink, tile.head_size, sums);
  }
}

void add_values(const AttentionTile& tile, const Chunk& chunk, const Rows& rows) {
  for (int32_t begin = chunk.begin; begin < chunk.end;) {
    const BlockPart part = block_part(tile, chunk, begin);
    multiply_add(rows.scores + part.begin, kAttentionChunk, part.values, tile.head_size, rows.sums, tile.head_size,
                 rows.count, tile.head_size, part.end - part.begin);
    begin = part.end;
  }
}

void end_rows(const AttentionTile& tile, const Rows& rows) {
  for (int32_t row = 0; row < rows.count; ++row) {
    const int32_t token = row / tile.group_size, head = row % tile.group_size;
    scale_row(rows.sums + int64_t(row) * tile.head_size, 1 / rows.states[row].sum, tile.head_size,
              tile.output + token * tile.output_stride + int64_t(head) * tile.head_size);
  }
}

// All rows over the keys at positions [first_key, keys_end).
void attend(const AttentionTile& tile, const Rows& rows, int32_t first_key, int32_t keys_end, bool is_sink) {
  for (int32_t position = first_key / kAttentionChunk * kAttentionChunk; position < keys_end;
       position += kAttentionChunk) {
    const int32_t left = keys_end - position;
    const Chunk chunk = {position, first_key > position ? first_key - position : 0,
                         left < kAttentionChunk ? left : kAttentionChunk, is_sink};
    score(tile, chunk, rows);
    weigh(tile, chunk, rows);
    add_values(tile, chunk, rows);
  }
}

}  // namespace

void attention(const AttentionTile& tile) {
  const Rows rows = begin_rows(tile);
  const int32_t keys_end = tile.first_position + tile.num_tokens;
  const int32_t sinks = tile.window == 0 ? 0 : tile.sink_tokens < keys_end ? tile.sink_tokens : keys_end;
  const int32_t first_key = first_visible(tile, tile.first_position);
  attend(tile, rows, 0, sinks, /*is_sink=*/true);
  attend(tile, rows, first_key > sinks ? first_key : sinks, keys_end, /*is_sink=*/false);
  end_rows(tile, rows);
}

}  // namespace inflight::cpu::INFLIGHT_ISA
