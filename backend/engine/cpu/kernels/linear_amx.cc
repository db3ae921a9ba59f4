#include <immintrin.h>

#include "engine/cpu/kernels/integer_weights_avx512.h"
#include "engine/cpu/kernels/linear_kernel.h"
#include "engine/cpu/kernels/tiles_amx.h"
#include "engine/cpu/kernels/vector.h"

// Products of the matrix unit: a tile of 16 tokens by 32 columns times one of 32 columns by a block's 16 rows, both of
// bfloat16. A lane of a tile holds two neighboring columns. Weights of other types are converted as they are needed,
// once for all tokens of a task.
namespace inflight::cpu {
namespace {

static_assert(kAmxTileTokens == kTileRows);
constexpr int64_t kMaxTilesPerPass = 18;  // of a block: so that a pass's weights stay in the first-level cache
constexpr int64_t kMaxTokenTiles = kMaxAmxTaskTokens / kAmxTileTokens;

// [even[0], odd[0], even[1], odd[1], ...] for the 16 lanes of each, which are the two halves of `both`.
__m512i interleave(__m512i both) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, both);
}

__m512i to_bfloat16(__m512 first, __m512 second) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first));
}

// Eight columns of 16 rows; get<i>() is one of them.
template <class Weight>
struct Octet {
  explicit Octet(const std::byte* p) { Weight::load(p, low, high); }

  template <int kColumn>
  __m512 get() const {
    const __m512i quad = kColumn < 4 ? low : high;
    return _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(quad, kColumn % 4 * 8), _mm512_set1_epi32(0xff)));
  }

  __m512i low, high;
};

// From a table, whose index is the lowest four bits.
template <class Weight>
  requires Weight::kIsPacked
struct Octet<Weight> {
  explicit Octet(const std::byte* p) : nibbles(_mm512_loadu_si512(p)) {}

  template <int kColumn>
  __m512 get() const {
    const __m512 values = _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    return _mm512_permutexvar_ps(_mm512_srli_epi32(nibbles, kColumn % 4 * 8 + kColumn / 4 * 4), values);
  }

  __m512i nibbles;
};

// Each type has: convert(), which writes the tiles of columns [32 * first, 32 * last) of a block.
template <class Weight>
struct Integers {
  static void convert(const PackedLayout& layout, const std::byte* block, int64_t first, int64_t last,
                      std::byte* tiles) {
    constexpr int64_t kOctets = kAmxTileColumns / 8;
    const std::byte* weights = block + layout.weight_offset + first * kOctets * Weight::kOctetBytes;
    for (int64_t segment = first; segment < last; ++segment) {
      __m512 scale, minimum;
      load_group<Weight>(layout, block, segment / layout.segments_per_group, scale, minimum);
      const auto convert_pair = [&](__m512 first_column, __m512 second_column) {
        const __m512 first_weights = _mm512_fmadd_ps(first_column, scale, minimum);
        const __m512 second_weights = _mm512_fmadd_ps(second_column, scale, minimum);
        _mm512_store_si512(tiles, interleave(to_bfloat16(first_weights, second_weights)));
        tiles += 64;
      };
      for (int64_t octet = 0; octet < kOctets; ++octet, weights += Weight::kOctetBytes) {
        const Octet<Weight> columns(weights);
        convert_pair(columns.template get<0>(), columns.template get<1>());
        convert_pair(columns.template get<2>(), columns.template get<3>());
        convert_pair(columns.template get<4>(), columns.template get<5>());
        convert_pair(columns.template get<6>(), columns.template get<7>());
      }
    }
  }
};

struct BFloat16 {
  static void convert(const PackedLayout&, const std::byte* block, int64_t first, int64_t last, std::byte* tiles) {
    const std::byte* columns = block + first * kTileBytes;
    for (int64_t i = 0; i < (last - first) * kTileBytes; i += 64) {
      _mm512_store_si512(tiles + i, interleave(_mm512_loadu_si512(columns + i)));
    }
  }
};

// The sums of 16 tokens with the rows of one block.
struct alignas(64) Sums {
  float values[kTileRows][kBlockRows];
};

// sums[t][b] (+)= tokens[t] · weights[b], over `count` tiles of each. The tiles' registers: 0 to 3 are sums, 4 and 5
// tokens, 6 and 7 weights.
template <int kTokenTiles, int kBlocks>
void multiply_tiles(const std::byte* tokens, int64_t token_tile_bytes,
                    const std::byte (&weights)[kBlocks][kMaxTilesPerPass * kTileBytes], int64_t count, bool begins,
                    Sums (*sums)[kBlocks]) {
  constexpr int kSecondBlock = kBlocks - 1, kSecondTokens = kTokenTiles - 1;
  if (begins) {
    _tile_zero(0);
    if constexpr (kBlocks == 2) _tile_zero(1);
    if constexpr (kTokenTiles == 2) _tile_zero(2);
    if constexpr (kTokenTiles == 2 && kBlocks == 2) _tile_zero(3);
  } else {
    _tile_loadd(0, sums[0][0].values, 64);
    if constexpr (kBlocks == 2) _tile_loadd(1, sums[0][kSecondBlock].values, 64);
    if constexpr (kTokenTiles == 2) _tile_loadd(2, sums[kSecondTokens][0].values, 64);
    if constexpr (kTokenTiles == 2 && kBlocks == 2) _tile_loadd(3, sums[kSecondTokens][kSecondBlock].values, 64);
  }
  const std::byte* second_tokens = tokens + kSecondTokens * token_tile_bytes;
  for (int64_t i = 0; i < count * kTileBytes; i += kTileBytes) {
    _tile_loadd(4, tokens + i, 64);
    _tile_loadd(6, weights[0] + i, 64);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kBlocks == 2) {
      _tile_loadd(7, weights[kSecondBlock] + i, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kTokenTiles == 2) {
      _tile_loadd(5, second_tokens + i, 64);
      _tile_dpbf16ps(2, 5, 6);
    }
    if constexpr (kTokenTiles == 2 && kBlocks == 2) _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums[0][0].values, 64);
  if constexpr (kBlocks == 2) _tile_stored(1, sums[0][kSecondBlock].values, 64);
  if constexpr (kTokenTiles == 2) _tile_stored(2, sums[kSecondTokens][0].values, 64);
  if constexpr (kTokenTiles == 2 && kBlocks == 2) _tile_stored(3, sums[kSecondTokens][kSecondBlock].values, 64);
}

// y (+)= sums + bias, for the tokens of the task from `token` on that are in the tile.
void store_sums(const LinearTask& task, int64_t token, int64_t block, const Sums& sums) {
  const int64_t row = block * kBlockRows;
  const __mmask16 lanes = lanes_below(task.layout->rows - row);
  const __m512 bias = task.bias == nullptr ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(lanes, task.bias + row);
  for (int64_t t = 0; t < kTileRows && token + t < task.last_token; ++t) {
    float* y = task.y + (token + t) * task.y_stride + row;
    __m512 value = _mm512_add_ps(_mm512_load_ps(sums.values[t]), bias);
    if (task.accumulate) value = _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, y), value);
    _mm512_mask_storeu_ps(y, lanes, value);
  }
}

// SiLU(sums[0]) * sums[1], of 16 of the gate's rows and as many of up's, as columns of the next layer's input.
void store_activated(const LinearTask& task, int64_t token, int64_t block, const Sums (&sums)[2]) {
  const int64_t columns = task.layout->rows / 2;
  std::byte* tile = task.activated + token * columns * 2 + block / 2 * kTileBytes + block % 2 * 32;
  const float* bias = task.bias == nullptr ? nullptr : task.bias + block * kBlockRows;
  for (int64_t t = 0; t < kTileRows && token + t < task.last_token; ++t) {
    __m512 gate = _mm512_load_ps(sums[0].values[t]), up = _mm512_load_ps(sums[1].values[t]);
    if (bias != nullptr) {
      gate = _mm512_add_ps(gate, _mm512_loadu_ps(bias));
      up = _mm512_add_ps(up, _mm512_loadu_ps(bias + columns));
    }
    const __m512 silu = gate / (amx::exp(-gate) + 1.0f);
    const __m256i halves = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(silu * up));
    _mm256_store_si256(reinterpret_cast<__m256i*>(tile + t * 64), halves);
  }
}

// store(token, sums) for every 16 tokens.
template <class Weight, int kBlocks, class Store>
void multiply_blocks(const LinearTask& task, const int64_t (&blocks)[kBlocks], const Store& store) {
  const PackedLayout& layout = *task.layout;
  const int64_t tiles = layout.columns / kAmxTileColumns;
  const int64_t passes = (tiles + kMaxTilesPerPass - 1) / kMaxTilesPerPass;
  const int64_t token_tile_bytes = tiles * kTileBytes;
  alignas(64) std::byte weights[kBlocks][kMaxTilesPerPass * kTileBytes];
  Sums sums[kMaxTokenTiles][kBlocks];
  for (int64_t pass = 0; pass < passes; ++pass) {
    const int64_t first = pass * tiles / passes, last = (pass + 1) * tiles / passes;
    for (int b = 0; b < kBlocks; ++b) {
      Weight::convert(layout, task.blocks + blocks[b] * layout.block_bytes, first, last, weights[b]);
    }
    make_visible_to_tiles();
    for (int64_t token = task.first_token; token < task.last_token; token += 2 * kTileRows) {
      Sums(*tile_sums)[kBlocks] = sums + (token - task.first_token) / kTileRows;
      const std::byte* x = task.x_tiles + token / kTileRows * token_tile_bytes + first * kTileBytes;
      const bool is_one_tile = token + kTileRows >= task.last_token;
      if (is_one_tile) {
        multiply_tiles<1>(x, token_tile_bytes, weights, last - first, pass == 0, tile_sums);
      } else {
        multiply_tiles<2>(x, token_tile_bytes, weights, last - first, pass == 0, tile_sums);
      }
      if (pass + 1 < passes) continue;
      store(token, tile_sums[0]);
      if (!is_one_tile) store(token + kTileRows, tile_sums[1]);
    }
  }
}

template <class Weight, int kBlocks>
void multiply_and_store(const LinearTask& task, int64_t block) {
  int64_t blocks[kBlocks];
  for (int b = 0; b < kBlocks; ++b) blocks[b] = block + b;
  multiply_blocks<Weight>(task, blocks, [&](int64_t token, const Sums(&sums)[kBlocks]) {
    for (int b = 0; b < kBlocks; ++b) store_sums(task, token, block + b, sums[b]);
  });
}

template <class Weight>
void multiply(const LinearTask& task) {
  const TilesInUse tiles;
  int64_t block = task.first_block;
  if (task.activated != nullptr) {
    for (; block < task.last_block; ++block) {
      const int64_t gate_and_up[] = {block, block + task.layout->rows / 2 / kBlockRows};
      multiply_blocks<Weight>(task, gate_and_up, [&](int64_t token, const Sums(&sums)[2]) {
        store_activated(task, token, block, sums);
      });
    }
    return;
  }
  for (; block + 2 <= task.last_block; block += 2) multiply_and_store<Weight, 2>(task, block);
  if (block < task.last_block) multiply_and_store<Weight, 1>(task, block);
}

}  // namespace

void linear_rounded_amx(const LinearTask& task) {
  switch (task.layout->type) {
    case WeightType::kBFloat16: return multiply<BFloat16>(task);
    case WeightType::kInt8: return multiply<Integers<Int8>>(task);
    case WeightType::kInt4:
      return task.layout->has_minimum ? multiply<Integers<Int4WithMinimum>>(task) : multiply<Integers<Int4>>(task);
    default: __builtin_unreachable();  // see input_form()
  }
}

void write_row_to_tiles_amx(const float* x, int64_t columns, std::byte* tiles) {
  for (int64_t k = 0; k < columns; k += kAmxTileColumns, tiles += kTileBytes) {
    _mm512_storeu_si512(tiles, to_bfloat16(_mm512_loadu_ps(x + k), _mm512_loadu_ps(x + k + 16)));
  }
}

}  // namespace inflight::cpu
