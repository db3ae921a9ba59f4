#include <immintrin.h>

#include "engine/cpu/kernels/integer_weights_avx512.h"
#include "engine/cpu/kernels/linear_kernel.h"
#include "engine/cpu/kernels/tiles_amx.h"

// Products of the matrix unit: a tile of 16 tokens by 64 columns times one of 64 columns by a block's 16 rows. Weights
// are bytes (q + 128), activations 16 bits in two halves, so that a product is exact but for their rounding.
namespace inflight::cpu {
namespace {

constexpr int64_t kChunkColumns = 64;
constexpr int64_t kChunkSegments = 2;
constexpr int64_t kMaxChunksPerPass = 16;  // so that the pass's weights stay in the first-level cache
constexpr int64_t kMaxTokenTiles = 8;
constexpr int64_t kMaxPassColumns = kMaxChunksPerPass * kChunkColumns;

// The sums of 16 tokens with one block's rows: of the activations' high halves and of their low halves.
struct alignas(64) Sums {
  int32_t high[kTileRows][kBlockRows];
  int32_t low[kTileRows][kBlockRows];
};

// sums[b] (+)= activations · weights[b] over `chunks` chunks. activations: [chunks][high, low][16][64]
template <int kBlocks>
void multiply_tile(const int8_t* activations, const std::byte* const (&weights)[kBlocks], int64_t chunks, bool begins,
                   Sums* sums) {
  if (begins) {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (kBlocks == 2) {
      _tile_zero(2);
      _tile_zero(3);
    }
  } else {
    _tile_loadd(0, sums[0].high, 64);
    _tile_loadd(1, sums[0].low, 64);
    if constexpr (kBlocks == 2) {
      _tile_loadd(2, sums[1].high, 64);
      _tile_loadd(3, sums[1].low, 64);
    }
  }
  const std::byte* first = weights[0];
  const std::byte* second = weights[kBlocks - 1];
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    _tile_loadd(4, activations, 64);
    _tile_loadd(6, first, 64);
    _tile_dpbsud(0, 4, 6);
    _tile_loadd(5, activations + kTileBytes, 64);
    _tile_dpbsud(1, 5, 6);
    if constexpr (kBlocks == 2) {
      _tile_loadd(7, second, 64);
      _tile_dpbsud(2, 4, 7);
      _tile_dpbsud(3, 5, 7);
    }
    activations += 2 * kTileBytes;
    first += kTileBytes;
    second += kTileBytes;
  }
  _tile_stored(0, sums[0].high, 64);
  _tile_stored(1, sums[0].low, 64);
  if constexpr (kBlocks == 2) {
    _tile_stored(2, sums[1].high, 64);
    _tile_stored(3, sums[1].low, 64);
  }
}

// y = (256 * high + low) * the token's scale * the row's scale, for tokens [token, end) of a tile that begins there.
void store_sums(const LinearTask& task, int64_t token, int64_t end, int64_t block, const Sums& sums,
                __m512 row_scale) {
  const int64_t row = block * kBlockRows;
  const __mmask16 lanes = lanes_below(task.layout->rows - row);
  const __m512 bias = task.bias == nullptr ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(lanes, task.bias + row);
  for (int64_t t = 0; t < end - token; ++t) {
    const int32_t* offsets = task.segment_sums + (token + t) * 2;
    const __m512i high = _mm512_add_epi32(_mm512_load_si512(sums.high[t]), _mm512_set1_epi32(offsets[0]));
    const __m512i low = _mm512_add_epi32(_mm512_load_si512(sums.low[t]), _mm512_set1_epi32(offsets[1]));
    const __m512 sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), _mm512_set1_ps(256.0f), _mm512_cvtepi32_ps(low));
    const __m512 scale = _mm512_mul_ps(row_scale, _mm512_set1_ps(task.segment_scales[token + t]));
    float* y = task.y + (token + t) * task.y_stride + row;
    __m512 value = _mm512_fmadd_ps(sum, scale, bias);
    if (task.accumulate) value = _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, y), value);
    _mm512_mask_storeu_ps(y, lanes, value);
  }
}

template <class Weight, int kBlocks>
void multiply_blocks(const LinearTask& task, int64_t block) {
  const PackedLayout& layout = *task.layout;
  const int64_t chunks = layout.columns / kChunkColumns;
  const int64_t passes = (chunks + kMaxChunksPerPass - 1) / kMaxChunksPerPass;
  alignas(64) std::byte int8[kBlocks][kMaxPassColumns * kBlockRows];
  Sums sums[kMaxTokenTiles][kBlocks];
  const std::byte* blocks[kBlocks];
  __m512 row_scales[kBlocks];
  for (int b = 0; b < kBlocks; ++b) {
    blocks[b] = task.blocks + (block + b) * layout.block_bytes;
    if constexpr (Weight::kIsPacked) {
      row_scales[b] = scales_of_rows<Weight>(layout, blocks[b]);
    } else {
      row_scales[b] = load_scales(blocks[b], 0, layout.half_scales);
    }
  }
  for (int64_t first_token = task.first_token; first_token < task.last_token; first_token += kMaxTokenTiles * kTileRows) {
    int64_t last_token = first_token + kMaxTokenTiles * kTileRows;
    if (last_token > task.last_token) last_token = task.last_token;
    for (int64_t pass = 0; pass < passes; ++pass) {
      const int64_t first = pass * chunks / passes, last = (pass + 1) * chunks / passes;
      const std::byte* weights[kBlocks];
      for (int b = 0; b < kBlocks; ++b) {
        if constexpr (Weight::kIsPacked) {
          requantize<Weight>(layout, blocks[b], row_scales[b], 4, first * kChunkSegments, last * kChunkSegments,
                             int8[b]);
          weights[b] = int8[b];
        } else {
          weights[b] = blocks[b] + layout.weight_offset + first * kTileBytes;
        }
      }
      make_visible_to_tiles();
      const int8_t* activations = task.quantized_x + first_token * 2 * layout.columns + first * 2 * kTileBytes;
      for (int64_t token = first_token, tile = 0; token < last_token; token += kTileRows, ++tile) {
        multiply_tile<kBlocks>(activations, weights, last - first, pass == 0, sums[tile]);
        activations += kTileRows * 2 * layout.columns;
        if (pass < passes - 1) continue;
        const int64_t end = token + kTileRows < last_token ? token + kTileRows : last_token;
        for (int b = 0; b < kBlocks; ++b) store_sums(task, token, end, block + b, sums[tile][b], row_scales[b]);
      }
    }
  }
}

template <class Weight>
void multiply(const LinearTask& task) {
  const TilesInUse tiles;
  int64_t block = task.first_block;
  for (; block + 2 <= task.last_block; block += 2) multiply_blocks<Weight, 2>(task, block);
  if (block < task.last_block) multiply_blocks<Weight, 1>(task, block);
}

}  // namespace

void linear_rounded_amx(const LinearTask& task) {
  if (task.layout->type == WeightType::kInt8) return multiply<Int8>(task);
  if (task.layout->has_minimum) return multiply<Int4WithMinimum>(task);
  return multiply<Int4>(task);
}

void quantize_row_amx(const QuantizeTask& task) {
  const int64_t columns = task.layout->columns;
  __m512 largest = _mm512_setzero_ps();
  for (int64_t k = 0; k < columns; k += kBlockRows) largest = max_magnitude(largest, _mm512_loadu_ps(task.x + k));
  // As integers, which order NaNs above all else.
  const uint32_t bits = _mm512_reduce_max_epu32(_mm512_castps_si512(largest));
  float absmax;
  __builtin_memcpy(&absmax, &bits, sizeof absmax);
  constexpr float kSteps = 127 * 256 + 127;
  const bool is_zero = absmax < kSmallestAbsmax16;
  const __m512 inverse = _mm512_set1_ps(is_zero ? 0.0f : kSteps / absmax);

  __m512i high_sum = _mm512_setzero_si512(), low_sum = _mm512_setzero_si512();
  for (int64_t chunk = 0; chunk < columns / kChunkColumns; ++chunk) {
    int8_t* values = task.values + chunk * 2 * kTileBytes;
    for (int64_t i = 0; i < kChunkColumns; i += 16) {
      const __m512 x = _mm512_loadu_ps(task.x + chunk * kChunkColumns + i);
      const __m512i value = _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse));
      const __m512i high = _mm512_srai_epi32(_mm512_add_epi32(value, _mm512_set1_epi32(128)), 8);
      const __m512i low = _mm512_sub_epi32(value, _mm512_slli_epi32(high, 8));
      high_sum = _mm512_add_epi32(high_sum, high);
      low_sum = _mm512_add_epi32(low_sum, low);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(values + i), _mm512_cvtepi32_epi8(high));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(values + kTileBytes + i), _mm512_cvtepi32_epi8(low));
    }
  }
  task.scales[0] = is_zero ? 0.0f : absmax / kSteps;
  task.sums[0] = -128 * _mm512_reduce_add_epi32(high_sum);
  task.sums[1] = -128 * _mm512_reduce_add_epi32(low_sum);
}

}  // namespace inflight::cpu
