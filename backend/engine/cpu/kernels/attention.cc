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

using TileFunction = void (*)(const float*, int64_t, const float* const*, int64_t, const float* const*, float*, int64_t,
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
constexpr TileFunction kTiles[kMaxRows][kMaxVectors] = {INFLIGHT_TILES(1), INFLIGHT_TILES(2), INFLIGHT_TILES(3),
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

// One query's running softmax (arXiv:1805.02867).
struct QueryState {
  float maximum;
  float sum;
};

// The same as online_softmax() for a tile that is seen whole, as most are.
float online_softmax_of_all(float* scores, QueryState& state) {
  constexpr int kVectors = kKeysPerTile / kLanes;
  Vector tile[kVectors];
  for (int v = 0; v < kVectors; ++v) tile[v] = load(scores + v * kLanes);
  Vector largest = tile[0];
  for (int v = 1; v < kVectors; ++v) largest = maximum(largest, tile[v]);
  const float tile_maximum = maximum(largest);
  const bool grows = tile_maximum > state.maximum;
  const float new_maximum = grows ? tile_maximum : state.maximum;

  Vector total = {};
  for (int v = 0; v < kVectors; ++v) {
    const Vector weights = exp(tile[v] - new_maximum);
    total += weights;
    store(scores + v * kLanes, weights);
  }
  const float shrink = state.sum == 0 ? 0 : grows ? exp(broadcast(state.maximum - new_maximum))[0] : 1;
  state.sum = state.sum * shrink + sum(total);
  state.maximum = new_maximum;
  return shrink;
}

// Replaces the scores in [begin, end) by e^(score - maximum) and the others of the tile by 0, and
// returns the factor by which what was summed up before shrinks.
float online_softmax(float* scores, int32_t begin, int32_t end, QueryState& state) {
  if (begin == 0 && end == kKeysPerTile) return online_softmax_of_all(scores, state);
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
  const float tile_maximum = maximum(largest);
  const float new_maximum = tile_maximum > state.maximum ? tile_maximum : state.maximum;

  Vector total = {};
  for (int32_t i = 0; i < first; i += kLanes) store(scores + i, Vector{});
  int32_t i = first;
  for (; i < end; i += kLanes) {
    const Vector weights = inside(i) ? exp(load(scores + i) - new_maximum) : Vector{};
    total += weights;
    store(scores + i, weights);
  }
  for (; i < kKeysPerTile; i += kLanes) store(scores + i, Vector{});

  const float shrink = state.sum == 0 ? 0 : exp(broadcast(state.maximum - new_maximum))[0];
  state.sum = state.sum * shrink + sum(total);
  state.maximum = new_maximum;
  return shrink;
}

void fill_zero(float* x, int64_t size) {
  for (int64_t i = 0; i < size; ++i) x[i] = 0;
}

// The keys of a tile that some row sees: positions [position + begin, position + end). Of sink tokens each row sees all
// up to its own position, of others those in its window.
struct KeyTile {
  int32_t position;
  int32_t begin;
  int32_t end;
  bool is_sink;
};

// Those of them that lie in one block of the cache.
struct BlockPart {
  const float* keys;    // words, [head_size / kDepth, ...] at the first of its keys
  const float* values;  // words, [..., head_size] at the one with the first of its values
  int32_t begin;        // in the tile
  int32_t end;
};

template <class Cache>
BlockPart block_part(const AttentionTask& task, const KeyTile& tile, int32_t begin) {
  const int32_t position = tile.position + begin;
  const int32_t offset = position & (task.tokens_per_block - 1);
  const float* keys = task.cache + task.block_ids[position / task.tokens_per_block] * task.block_stride;
  const float* values = keys + int64_t(task.head_size / Cache::kDepth) * task.tokens_per_block;
  const int32_t left = task.tokens_per_block - offset;
  const int32_t end = tile.end - begin < left ? tile.end : begin + left;
  return {keys + offset, values + int64_t(offset / Cache::kDepth) * task.head_size, begin, end};
}

// The first position in a token's window.
int32_t first_visible(const AttentionTask& task, int32_t position) {
  return task.window > 0 && position >= task.window ? position - task.window + 1 : 0;
}

// The task's rows of queries, one for each token and head, in its scratch memory. There they are followed by rows of
// anything, so that they fill row_tiles tiles of the matrix unit.
struct QueryRows {
  int32_t count;
  int32_t row_tiles;
  int32_t rows_per_tile;
  float* queries;      // [count, head_size], scaled
  float* sums;         // [count, head_size]: values, weighted by e^(score - maximum)
  float* scores;       // [count, kKeysPerTile], and then weights
  QueryState* states;  // [count]
  float* edge;         // [kAttentionEdgeWords, head_size] words
};

template <class Cache>
QueryRows begin_rows(const AttentionTask& task) {
  const int32_t count = task.num_tokens * task.heads_per_kv_head;
  const int32_t row_tiles = (count + kAttentionTileRows - 1) / kAttentionTileRows;
  const int32_t rows_per_tile = (count + row_tiles - 1) / row_tiles;
  const int64_t padded = int64_t(row_tiles) * rows_per_tile, size = padded * task.head_size;
  float* scores = task.scratch + 2 * size;
  float* edge = scores + padded * kKeysPerTile;
  float* states = edge + int64_t(kAttentionEdgeWords) * task.head_size;
  const QueryRows rows = {
      count, row_tiles, rows_per_tile, task.scratch, task.scratch + size, scores, reinterpret_cast<QueryState*>(states),
      edge};
  for (int32_t row = 0; row < count; ++row) {
    const int32_t token = row / task.heads_per_kv_head, head = row % task.heads_per_kv_head;
    scale_row(task.queries + token * task.query_stride + int64_t(head) * task.head_size, task.scale, task.head_size,
              rows.queries + int64_t(row) * task.head_size);
    Cache::prepare(rows.queries + int64_t(row) * task.head_size, task.head_size);
    rows.states[row] = {-__builtin_inff(), 0};
  }
  fill_zero(rows.sums, int64_t(count) * task.head_size);
  return rows;
}

// Scores of all rows with the tile's keys; whole vectors of them where blocks hold such, so that scores
// outside [begin, end) are anything.
template <class Cache>
void score(const AttentionTask& task, const KeyTile& tile, const QueryRows& rows) {
  if constexpr (!Cache::kHasTiles) fill_zero(rows.scores, int64_t(rows.count) * kKeysPerTile);
  if (task.tokens_per_block >= kLanes) {
    const int32_t first = tile.begin / kLanes, last = (tile.end + kLanes - 1) / kLanes;
    const float *keys[kKeysPerTile / kLanes], *values[kKeysPerTile / kLanes];
    for (int32_t v = first; v < last; ++v) {
      const BlockPart part = block_part<Cache>(task, tile, v * kLanes);
      keys[v - first] = part.keys;
      values[v - first] = part.values;
    }
    // One pass over the keys is bound by memory: fetch their values meanwhile.
    const float* const* ahead = rows.count <= kMaxRows ? values : nullptr;
#if defined(__AMX_BF16__)
    if constexpr (Cache::kHasTiles) {
      return multiply({.a = rows.queries,
                       .a_stride = task.head_size,
                       .b = keys,
                       .b_stride = task.tokens_per_block,
                       .c = rows.scores + first * kLanes,
                       .c_stride = kKeysPerTile,
                       .row_tiles = rows.row_tiles,
                       .rows_per_tile = rows.rows_per_tile,
                       .vectors = last - first,
                       .depth = task.head_size / Cache::kDepth,
                       .ahead = ahead});
    }
#endif
    multiply_add_vectors<Cache>(rows.queries, task.head_size, keys, task.tokens_per_block, ahead,
                                rows.scores + first * kLanes, kKeysPerTile, rows.count, last - first,
                                task.head_size / Cache::kDepth);
    return;
  }
  for (int32_t begin = tile.begin; begin < tile.end;) {
    const BlockPart part = block_part<Cache>(task, tile, begin);
    multiply_add<Cache>(rows.queries, task.head_size, part.keys, task.tokens_per_block, rows.scores + part.begin,
                        kKeysPerTile, rows.count, part.end - part.begin, task.head_size / Cache::kDepth);
    begin = part.end;
  }
}

// Turns scores into weights, 0 for what a row does not see, and shrinks the sums to match.
template <class Cache>
void weigh(const AttentionTask& task, const KeyTile& tile, const QueryRows& rows) {
  for (int32_t row = 0; row < rows.count; ++row) {
    float* scores = rows.scores + int64_t(row) * kKeysPerTile;
    const int32_t position = task.first_position + row / task.heads_per_kv_head;
    const int32_t first = tile.is_sink ? 0 : first_visible(task, position) - tile.position;
    const int32_t last = position - tile.position;
    const int32_t begin = first > tile.begin ? first : tile.begin, end = last < tile.end ? last + 1 : tile.end;
    if (begin >= end) {
      fill_zero(scores, kKeysPerTile);
      continue;
    }
    const float shrink = online_softmax(scores, begin, end, rows.states[row]);
    float* sums = rows.sums + int64_t(row) * task.head_size;
    if (shrink != 1) scale_row(sums, shrink, task.head_size, sums);
    Cache::prepare(scores, kKeysPerTile);
  }
}

template <class Cache>
void add_values(const AttentionTask& task, const KeyTile& tile, const QueryRows& rows) {
  for (int32_t begin = tile.begin; begin < tile.end;) {
    const BlockPart part = block_part<Cache>(task, tile, begin);
    const int32_t first = part.begin / Cache::kDepth, last = part.end / Cache::kDepth;
    // Weights in front of `begin` are 0, and those values are a token's; behind `end` they may be anything.
    multiply_add<Cache>(Cache::weights(rows.scores, first), kKeysPerTile, part.values, task.head_size, rows.sums,
                        task.head_size, rows.count, task.head_size, last - first);
    if constexpr (Cache::kDepth > 1) {
      if (part.end % Cache::kDepth != 0) {
        const float* words = part.values + int64_t(last - first) * task.head_size;
        for (int32_t i = 0; i < task.head_size; ++i) rows.edge[i] = Cache::without_high(words[i]);
        multiply_add<Cache>(Cache::weights(rows.scores, last), kKeysPerTile, rows.edge, task.head_size, rows.sums,
                            task.head_size, rows.count, task.head_size, 1);
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

// Goes on by the depth of the matrix unit's tiles from the key tile's begin, so that a row's sums do not depend on
// where that ends.
void add_values_in_tiles(const AttentionTask& task, const KeyTile& tile, const QueryRows& rows) {
  constexpr int32_t kTokens = 2 * kWordsPerTile;
  for (int32_t begin = tile.begin / kTokens * kTokens; begin < tile.end; begin += kTokens) {
    const float* values = block_part<BFloat16Cache>(task, tile, begin).values;
    if (tile.end - begin < kTokens) values = values_at_edge(values, tile.end - begin, task.head_size, rows.edge);
    const float* columns[kMaxTileHeadSize / kLanes];
    const int32_t vectors = task.head_size / kLanes;
    for (int32_t v = 0; v < vectors; ++v) columns[v] = values + v * kLanes;
    multiply({.a = rows.scores + begin / 2,
              .a_stride = kKeysPerTile,
              .b = columns,
              .b_stride = task.head_size,
              .c = rows.sums,
              .c_stride = task.head_size,
              .row_tiles = rows.row_tiles,
              .rows_per_tile = rows.rows_per_tile,
              .vectors = vectors,
              .depth = kWordsPerTile,
              .accumulates = true});
  }
}
#endif

void end_rows(const AttentionTask& task, const QueryRows& rows) {
  for (int32_t row = 0; row < rows.count; ++row) {
    const int32_t token = row / task.heads_per_kv_head, head = row % task.heads_per_kv_head;
    scale_row(rows.sums + int64_t(row) * task.head_size, 1 / rows.states[row].sum, task.head_size,
              task.output + token * task.output_stride + int64_t(head) * task.head_size);
  }
}

// All rows over the keys at positions [first_key, keys_end).
template <class Cache>
void attend(const AttentionTask& task, const QueryRows& rows, int32_t first_key, int32_t keys_end, bool is_sink) {
  for (int32_t position = first_key / kKeysPerTile * kKeysPerTile; position < keys_end; position += kKeysPerTile) {
    const int32_t left = keys_end - position;
    const KeyTile tile = {position, first_key > position ? first_key - position : 0,
                          left < kKeysPerTile ? left : kKeysPerTile, is_sink};
    score<Cache>(task, tile, rows);
    weigh<Cache>(task, tile, rows);
#if defined(__AMX_BF16__)
    if constexpr (Cache::kHasTiles) {
      add_values_in_tiles(task, tile, rows);
      continue;
    }
#endif
    add_values<Cache>(task, tile, rows);
  }
}

template <class Cache>
void attend_to_cache(const AttentionTask& task) {
  const QueryRows rows = begin_rows<Cache>(task);
  const typename Cache::Unit unit(rows.rows_per_tile);
  const int32_t keys_end = task.first_position + task.num_tokens;
  const int32_t sinks = task.window == 0 ? 0 : task.sink_tokens < keys_end ? task.sink_tokens : keys_end;
  const int32_t first_key = first_visible(task, task.first_position);
  attend<Cache>(task, rows, 0, sinks, /*is_sink=*/true);
  attend<Cache>(task, rows, first_key > sinks ? first_key : sinks, keys_end, /*is_sink=*/false);
  end_rows(task, rows);
}

}  // namespace

void attention(const AttentionTask& task) {
#if defined(__AMX_BF16__)
  const bool fits_tiles = task.head_size % (2 * kWordsPerTile) == 0 && task.head_size <= kMaxTileHeadSize &&
                          task.tokens_per_block >= 2 * kWordsPerTile;
  if (task.is_bfloat16 && fits_tiles) return attend_to_cache<BFloat16Tiles>(task);
#endif
  if (task.is_bfloat16) {
    attend_to_cache<BFloat16Cache>(task);
  } else {
    attend_to_cache<Float32Cache>(task);
  }
}

}  // namespace inflight::cpu::INFLIGHT_ISA
