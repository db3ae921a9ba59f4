#include "engine/cpu/kernels/isa_operations.h"
#include "engine/cpu/kernels/vector.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif
#if defined(__AMX_BF16__)
#include "engine/cpu/kernels/multiply_bfloat16_amx.h"
#endif

namespace inflight::cpu::INFLIGHT_ISA {
namespace {

// What the registers hold: kMaxRows x kMaxVectors sums beside a row of what they are multiplied with.
#if defined(__AVX512F__)
constexpr int kMaxRows = 6, kMaxVectors = 4;
#else
constexpr int kMaxRows = 6, kMaxVectors = 2;
#endif

// What multiplies, set up for tiles of some rows.
struct VectorUnit {
  explicit VectorUnit(int64_t) {}
};

// How the cache holds a value. A Word is 32 bits of it, kDepth values that lie behind each other along the depth of a
// product (head_size for keys, tokens for values). add_products() adds a · word to `sums`, lane by lane, of kDepth
// floats at `a`, which prepare() may have put into another form.
struct Float32Cache {
  static constexpr bool kHasTiles = false;
  using Unit = VectorUnit;
  static constexpr int32_t kDepth = 1;
  template <int ROWS, int VECTORS>
  [[gnu::always_inline]] static void add_products(const float* a, int64_t a_stride, int64_t k,
                                                  const Vector (&words)[VECTORS], Vector (&sums)[ROWS][VECTORS]) {
    for (int r = 0; r < ROWS; ++r) {
      for (int v = 0; v < VECTORS; ++v) sums[r][v] += a[r * a_stride + k] * words[v];
    }
  }
  static float product(const float* a, int64_t k, float word) { return a[k] * word; }
  static void prepare(float*, int64_t) {}
  static const float* weights(const float* row, int32_t word) { return row + word; }
};

struct BFloat16Cache {
  static constexpr bool kHasTiles = false;
  using Unit = VectorUnit;
  static constexpr int32_t kDepth = 2;
  static Vector low(Vector words) { return __builtin_bit_cast(Vector, __builtin_bit_cast(IntVector, words) << 16); }
  static Vector high(Vector words) {
    return __builtin_bit_cast(Vector, __builtin_bit_cast(IntVector, words) & int32_t(0xffff0000));
  }
  static float low(float word) { return __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, word) << 16); }
  static float high(float word) { return __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, word) & 0xffff0000u); }

  static float without_high(float word) {
    return __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, word) & 0xffffu);
  }

#if defined(__AVX512BF16__)
  // Of a prepared row, those that word `word` of the depth is multiplied with.
  static const float* weights(const float* row, int32_t word) { return row + word; }

  template <int ROWS, int VECTORS>
  [[gnu::always_inline]] static void add_products(const float* a, int64_t a_stride, int64_t k,
                                                  const Vector (&words)[VECTORS], Vector (&sums)[ROWS][VECTORS]) {
    for (int r = 0; r < ROWS; ++r) {
      const auto pair = __builtin_bit_cast(__m512bh, broadcast(a[r * a_stride + k]));
      for (int v = 0; v < VECTORS; ++v) {
        sums[r][v] = _mm512_dpbf16_ps(sums[r][v], pair, __builtin_bit_cast(__m512bh, words[v]));
      }
    }
  }
  static float product(const float* a, int64_t k, float word) {
    return low(a[k]) * low(word) + high(a[k]) * high(word);
  }
  // Rounds them to pairs of bfloat16, in the first half of their memory.
  static void prepare(float* a, int64_t size) {
    for (int64_t i = 0; i < size; i += 2 * kLanes) {
      const int64_t left = size - i;
      const auto mask = [](int64_t count) { return static_cast<__mmask16>(count >= 16 ? 0xffff : (1u << count) - 1); };
      const __m512 first = _mm512_maskz_loadu_ps(mask(left), a + i);
      const __m512 second = _mm512_maskz_loadu_ps(left > kLanes ? mask(left - kLanes) : __mmask16{0}, a + i + kLanes);
      const auto pairs = __builtin_bit_cast(__m512, _mm512_cvtne2ps_pbh(second, first));
      _mm512_mask_storeu_ps(a + i / 2, mask((left + 1) / 2), pairs);
    }
  }
#else
  static const float* weights(const float* row, int32_t word) { return row + 2 * word; }

  template <int ROWS, int VECTORS>
  [[gnu::always_inline]] static void add_products(const float* a, int64_t a_stride, int64_t k,
                                                  const Vector (&words)[VECTORS], Vector (&sums)[ROWS][VECTORS]) {
    Vector first[VECTORS], second[VECTORS];
    for (int v = 0; v < VECTORS; ++v) first[v] = low(words[v]), second[v] = high(words[v]);
    for (int r = 0; r < ROWS; ++r) {
      for (int v = 0; v < VECTORS; ++v) sums[r][v] += a[r * a_stride + 2 * k] * first[v];
      for (int v = 0; v < VECTORS; ++v) sums[r][v] += a[r * a_stride + 2 * k + 1] * second[v];
    }
  }
  static float product(const float* a, int64_t k, float word) {
    return a[2 * k] * low(word) + a[2 * k + 1] * high(word);
  }
  static void prepare(float*, int64_t) {}
#endif
};

#if defined(__AMX_BF16__)
constexpr int32_t kMaxTileHeadSize = 512;
static_assert(kTileRows == kAttentionTileRows && kWordsPerTile == kAttentionEdgeWords);

struct BFloat16Tiles : BFloat16Cache {
  static constexpr bool kHasTiles = true;
  using Unit = TilesInUse;
};
#endif

// c += a · b for a [ROWS, depth] in the Cache's words, b [depth, VECTORS * kLanes] words, each with its rows' stride.
// Every vector of b's columns has a pointer of its own, so that one tile may span several blocks of the cache. With
// PREFETCHES, the depth * kLanes words at each pointer of `ahead` are prefetched meanwhile.
template <class Cache, int ROWS, int VECTORS, bool PREFETCHES>
void multiply_add_tile(const float* a, int64_t a_stride, const float* const* b, int64_t b_stride,
                       const float* const* ahead, float* c, int64_t c_stride, int64_t depth) {
  const float* columns[VECTORS];
  for (int v = 0; v < VECTORS; ++v) columns[v] = b[v];
  Vector sums[ROWS][VECTORS];
  for (int r = 0; r < ROWS; ++r) {
    for (int v = 0; v < VECTORS; ++v) sums[r][v] = load(c + r * c_stride + v * kLanes);
  }
  for (int64_t k = 0; k < depth; ++k) {
    Vector words[VECTORS];
    for (int v = 0; v < VECTORS; ++v) words[v] = load(columns[v] + k * b_stride);
    if constexpr (PREFETCHES) {
      for (int v = 0; v < VECTORS; ++v) __builtin_prefetch(ahead[v] + k * kLanes);
    }
    Cache::template add_products<ROWS, VECTORS>(a, a_stride, k, words, sums);
  }
  for (int r = 0; r < ROWS; ++r) {
    for (int v = 0; v < VECTORS; ++v) store(c + r * c_stride + v * kLanes, sums[r][v]);
  }
}

using Tile = void (*)(const float*, int64_t, const float* const*, int64_t, const float* const*, float*, int64_t,
                      int64_t);

#if defined(__AVX512F__)
#define INFLIGHT_TILES(ROWS)                                                                     \
  {multiply_add_tile<Cache, ROWS, 1, PREFETCHES>, multiply_add_tile<Cache, ROWS, 2, PREFETCHES>, \
   multiply_add_tile<Cache, ROWS, 3, PREFETCHES>, multiply_add_tile<Cache, ROWS, 4, PREFETCHES>}
#else
#define INFLIGHT_TILES(ROWS) \
  {multiply_add_tile<Cache, ROWS, 1, PREFETCHES>, multiply_add_tile<Cache, ROWS, 2, PREFETCHES>}
#endif

// By rows - 1 and vectors - 1.
template <class Cache, bool PREFETCHES>
constexpr Tile kTiles[kMaxRows][kMaxVectors] = {INFLIGHT_TILES(1), INFLIGHT_TILES(2), INFLIGHT_TILES(3),
                                                INFLIGHT_TILES(4), INFLIGHT_TILES(5), INFLIGHT_TILES(6)};

// c += a · b for a [rows, depth], b [depth, vectors * kLanes]. `ahead` as above; null prefetches nothing.
template <class Cache>
void multiply_add_vectors(const float* a, int64_t a_stride, const float* const* b, int64_t b_stride,
                          const float* const* ahead, float* c, int64_t c_stride, int64_t rows, int64_t vectors,
                          int64_t depth) {
  const auto& tiles = ahead == nullptr ? kTiles<Cache, false> : kTiles<Cache, true>;
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
template <class Cache>
void multiply_add(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* c, int64_t c_stride,
                  int64_t rows, int64_t columns, int64_t depth) {
  int64_t n = 0;
  for (; n + kLanes <= columns; n += kMaxVectors * kLanes) {
    const float* pointers[kMaxVectors];
    int64_t vectors = 0;
    for (; vectors < kMaxVectors && n + (vectors + 1) * kLanes <= columns; ++vectors) {
      pointers[vectors] = b + n + vectors * kLanes;
    }
    multiply_add_vectors<Cache>(a, a_stride, pointers, b_stride, nullptr, c + n, c_stride, rows, vectors, depth);
  }
  for (n = columns / kLanes * kLanes; n < columns; ++n) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t k = 0; k < depth; ++k) {
        c[r * c_stride + n] += Cache::product(a + r * a_stride, k, b[k * b_stride + n]);
      }
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

// The same as online_softmax() for a chunk that is seen whole, as most are.
float online_softmax_of_all(float* scores, RowState& state) {
  constexpr int kVectors = kAttentionChunk / kLanes;
  Vector chunk[kVectors];
  for (int v = 0; v < kVectors; ++v) chunk[v] = load(scores + v * kLanes);
  Vector largest = chunk[0];
  for (int v = 1; v < kVectors; ++v) largest = maximum(largest, chunk[v]);
  const float chunk_maximum = maximum(largest);
  const bool grows = chunk_maximum > state.maximum;
  const float new_maximum = grows ? chunk_maximum : state.maximum;

  Vector total = {};
  for (int v = 0; v < kVectors; ++v) {
    const Vector weights = exp(chunk[v] - new_maximum);
    total += weights;
    store(scores + v * kLanes, weights);
  }
  const float shrink = state.sum == 0 ? 0 : grows ? exp(broadcast(state.maximum - new_maximum))[0] : 1;
  state.sum = state.sum * shrink + sum(total);
  state.maximum = new_maximum;
  return shrink;
}

// Replaces the scores in [begin, end) by e^(score - maximum) and the others of the chunk by 0, and
// returns the factor by which what was summed up before shrinks.
float online_softmax(float* scores, int32_t begin, int32_t end, RowState& state) {
  if (begin == 0 && end == kAttentionChunk) return online_softmax_of_all(scores, state);
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
  const float* keys;    // words, [head_size / kDepth, ...] at the first of its keys
  const float* values;  // words, [..., head_size] at the one with the first of its values
  int32_t begin;        // in the chunk
  int32_t end;
};

template <class Cache>
BlockPart block_part(const AttentionTile& tile, const Chunk& chunk, int32_t begin) {
  const int32_t position = chunk.position + begin;
  const int32_t offset = position & (tile.tokens_per_block - 1);
  const float* keys = tile.cache + tile.block_ids[position / tile.tokens_per_block] * tile.block_stride;
  const float* values = keys + int64_t(tile.head_size / Cache::kDepth) * tile.tokens_per_block;
  const int32_t left = tile.tokens_per_block - offset;
  const int32_t end = chunk.end - begin < left ? chunk.end : begin + left;
  return {keys + offset, values + int64_t(offset / Cache::kDepth) * tile.head_size, begin, end};
}

// The first position in a token's window.
int32_t first_visible(const AttentionTile& tile, int32_t position) {
  return tile.window > 0 && position >= tile.window ? position - tile.window + 1 : 0;
}

// The tile's rows, one for each token and head, in its scratch memory. There they are followed by rows of anything, so
// that they fill row_tiles tiles of the matrix unit.
struct Rows {
  int32_t count;
  int32_t row_tiles;
  int32_t rows_per_tile;
  float* queries;    // [count, head_size], scaled
  float* sums;       // [count, head_size]: values, weighted by e^(score - maximum)
  float* scores;     // [count, kAttentionChunk], and then weights
  RowState* states;  // [count]
  float* edge;       // [kAttentionEdgeWords, head_size] words
};

template <class Cache>
Rows begin_rows(const AttentionTile& tile) {
  const int32_t count = tile.num_tokens * tile.group_size;
  const int32_t row_tiles = (count + kAttentionTileRows - 1) / kAttentionTileRows;
  const int32_t rows_per_tile = (count + row_tiles - 1) / row_tiles;
  const int64_t padded = int64_t(row_tiles) * rows_per_tile, size = padded * tile.head_size;
  float* scores = tile.scratch + 2 * size;
  float* edge = scores + padded * kAttentionChunk;
  float* states = edge + int64_t(kAttentionEdgeWords) * tile.head_size;
  const Rows rows = {
      count, row_tiles, rows_per_tile, tile.scratch, tile.scratch + size, scores, reinterpret_cast<RowState*>(states),
      edge};
  for (int32_t row = 0; row < count; ++row) {
    const int32_t token = row / tile.group_size, head = row % tile.group_size;
    scale_row(tile.queries + token * tile.query_stride + int64_t(head) * tile.head_size, tile.scale, tile.head_size,
              rows.queries + int64_t(row) * tile.head_size);
    Cache::prepare(rows.queries + int64_t(row) * tile.head_size, tile.head_size);
    rows.states[row] = {-__builtin_inff(), 0};
  }
  fill_zero(rows.sums, int64_t(count) * tile.head_size);
  return rows;
}

// Scores of all rows with the chunk's keys; whole vectors of them where blocks hold such, so that scores
// outside [begin, end) are anything.
template <class Cache>
void score(const AttentionTile& tile, const Chunk& chunk, const Rows& rows) {
  if constexpr (!Cache::kHasTiles) fill_zero(rows.scores, int64_t(rows.count) * kAttentionChunk);
  if (tile.tokens_per_block >= kLanes) {
    const int32_t first = chunk.begin / kLanes, last = (chunk.end + kLanes - 1) / kLanes;
    const float *keys[kAttentionChunk / kLanes], *values[kAttentionChunk / kLanes];
    for (int32_t v = first; v < last; ++v) {
      const BlockPart part = block_part<Cache>(tile, chunk, v * kLanes);
      keys[v - first] = part.keys;
      values[v - first] = part.values;
    }
    // One pass over the keys is bound by memory: fetch their values meanwhile.
    const float* const* ahead = rows.count <= kMaxRows ? values : nullptr;
#if defined(__AMX_BF16__)
    if constexpr (Cache::kHasTiles) {
      return multiply({.a = rows.queries,
                       .a_stride = tile.head_size,
                       .b = keys,
                       .b_stride = tile.tokens_per_block,
                       .c = rows.scores + first * kLanes,
                       .c_stride = kAttentionChunk,
                       .row_tiles = rows.row_tiles,
                       .rows_per_tile = rows.rows_per_tile,
                       .vectors = last - first,
                       .depth = tile.head_size / Cache::kDepth,
                       .ahead = ahead});
    }
#endif
    multiply_add_vectors<Cache>(rows.queries, tile.head_size, keys, tile.tokens_per_block, ahead,
                                rows.scores + first * kLanes, kAttentionChunk, rows.count, last - first,
                                tile.head_size / Cache::kDepth);
    return;
  }
  for (int32_t begin = chunk.begin; begin < chunk.end;) {
    const BlockPart part = block_part<Cache>(tile, chunk, begin);
    multiply_add<Cache>(rows.queries, tile.head_size, part.keys, tile.tokens_per_block, rows.scores + part.begin,
                        kAttentionChunk, rows.count, part.end - part.begin, tile.head_size / Cache::kDepth);
    begin = part.end;
  }
}

// Turns scores into weights, 0 for what a row does not see, and shrinks the sums to match.
template <class Cache>
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
    Cache::prepare(scores, kAttentionChunk);
  }
}

template <class Cache>
void add_values(const AttentionTile& tile, const Chunk& chunk, const Rows& rows) {
  for (int32_t begin = chunk.begin; begin < chunk.end;) {
    const BlockPart part = block_part<Cache>(tile, chunk, begin);
    const int32_t first = part.begin / Cache::kDepth, last = part.end / Cache::kDepth;
    // Weights in front of `begin` are 0, and those values are a token's; behind `end` they may be anything.
    multiply_add<Cache>(Cache::weights(rows.scores, first), kAttentionChunk, part.values, tile.head_size, rows.sums,
                        tile.head_size, rows.count, tile.head_size, last - first);
    if constexpr (Cache::kDepth > 1) {
      if (part.end % Cache::kDepth != 0) {
        const float* words = part.values + int64_t(last - first) * tile.head_size;
        for (int32_t i = 0; i < tile.head_size; ++i) rows.edge[i] = Cache::without_high(words[i]);
        multiply_add<Cache>(Cache::weights(rows.scores, last), kAttentionChunk, rows.edge, tile.head_size, rows.sums,
                            tile.head_size, rows.count, tile.head_size, 1);
      }
    }
    begin = part.end;
  }
}

#if defined(__AMX_BF16__)
// The values of a tile's depth of tokens, of which `count` are seen by some row, with zeros behind them.
const float* values_at_edge(const float* words, int32_t count, int32_t head_size, float* edge) {
  const int32_t whole = count / 2;
  int64_t i = 0;
  for (; i < int64_t(whole) * head_size; i += kLanes) store(edge + i, load(words + i));
  if (count % 2 != 0) {
    for (; i < int64_t(whole + 1) * head_size; i += kLanes) {
      store(edge + i, __builtin_bit_cast(Vector, __builtin_bit_cast(IntVector, load(words + i)) & 0xffff));
    }
  }
  for (; i < kWordsPerTile * head_size; i += kLanes) store(edge + i, Vector{});
  return edge;
}

// In steps of a tile's depth from the chunk's begin, so that a row's sums do not depend on where the chunk ends.
void add_values_in_tiles(const AttentionTile& tile, const Chunk& chunk, const Rows& rows) {
  constexpr int32_t kTokens = 2 * kWordsPerTile;
  for (int32_t begin = chunk.begin / kTokens * kTokens; begin < chunk.end; begin += kTokens) {
    const float* values = block_part<BFloat16Cache>(tile, chunk, begin).values;
    if (chunk.end - begin < kTokens) values = values_at_edge(values, chunk.end - begin, tile.head_size, rows.edge);
    const float* columns[kMaxTileHeadSize / kLanes];
    const int32_t vectors = tile.head_size / kLanes;
    for (int32_t v = 0; v < vectors; ++v) columns[v] = values + v * kLanes;
    multiply({.a = rows.scores + begin / 2,
              .a_stride = kAttentionChunk,
              .b = columns,
              .b_stride = tile.head_size,
              .c = rows.sums,
              .c_stride = tile.head_size,
              .row_tiles = rows.row_tiles,
              .rows_per_tile = rows.rows_per_tile,
              .vectors = vectors,
              .depth = kWordsPerTile,
              .accumulates = true});
  }
}
#endif

void end_rows(const AttentionTile& tile, const Rows& rows) {
  for (int32_t row = 0; row < rows.count; ++row) {
    const int32_t token = row / tile.group_size, head = row % tile.group_size;
    scale_row(rows.sums + int64_t(row) * tile.head_size, 1 / rows.states[row].sum, tile.head_size,
              tile.output + token * tile.output_stride + int64_t(head) * tile.head_size);
  }
}

// All rows over the keys at positions [first_key, keys_end).
template <class Cache>
void attend(const AttentionTile& tile, const Rows& rows, int32_t first_key, int32_t keys_end, bool is_sink) {
  for (int32_t position = first_key / kAttentionChunk * kAttentionChunk; position < keys_end;
       position += kAttentionChunk) {
    const int32_t left = keys_end - position;
    const Chunk chunk = {position, first_key > position ? first_key - position : 0,
                         left < kAttentionChunk ? left : kAttentionChunk, is_sink};
    score<Cache>(tile, chunk, rows);
    weigh<Cache>(tile, chunk, rows);
#if defined(__AMX_BF16__)
    if constexpr (Cache::kHasTiles) {
      add_values_in_tiles(tile, chunk, rows);
      continue;
    }
#endif
    add_values<Cache>(tile, chunk, rows);
  }
}

template <class Cache>
void attend_to_cache(const AttentionTile& tile) {
  const Rows rows = begin_rows<Cache>(tile);
  const typename Cache::Unit unit(rows.rows_per_tile);
  const int32_t keys_end = tile.first_position + tile.num_tokens;
  const int32_t sinks = tile.window == 0 ? 0 : tile.sink_tokens < keys_end ? tile.sink_tokens : keys_end;
  const int32_t first_key = first_visible(tile, tile.first_position);
  attend<Cache>(tile, rows, 0, sinks, /*is_sink=*/true);
  attend<Cache>(tile, rows, first_key > sinks ? first_key : sinks, keys_end, /*is_sink=*/false);
  end_rows(tile, rows);
}

}  // namespace

void attention(const AttentionTile& tile) {
#if defined(__AMX_BF16__)
  const bool fits_tiles = tile.head_size % (2 * kWordsPerTile) == 0 && tile.head_size <= kMaxTileHeadSize &&
                          tile.tokens_per_block >= 2 * kWordsPerTile;
  if (tile.is_bfloat16 && fits_tiles) return attend_to_cache<BFloat16Tiles>(tile);
#endif
  if (tile.is_bfloat16) {
    attend_to_cache<BFloat16Cache>(tile);
  } else {
    attend_to_cache<Float32Cache>(tile);
  }
}

}  // namespace inflight::cpu::INFLIGHT_ISA
