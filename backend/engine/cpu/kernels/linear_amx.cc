#include <immintrin.h>

#include "engine/cpu/kernels/integer_weights_avx512.h"
#include "engine/cpu/kernels/linear_kernel.h"
#include "engine/cpu/kernels/tiles_amx.h"

// Products of the matrix unit: a tile of 16 tokens by 64 columns times one of 64 columns by a block's 16 rows. Weights
// are bytes, int8 as it is stored (q + 128) or int4 requantized; activations are 16 bits in two halves, so that a
// product is exact but for their rounding.
namespace inflight::cpu {
namespace {

static_assert(kAmxTileTokens == kTileRows);
constexpr int64_t kChunkSegments = 2;
constexpr int64_t kMaxChunksPerPass = 16;  // so that the pass's weights stay in the first-level cache
constexpr int64_t kMaxTokenTiles = kMaxAmxTaskTokens / kAmxTileTokens;

// The sums of 16 tokens with one block's rows: of the activations' high halves and of their low halves.
struct alignas(64) Sums {
  int32_t high[kTileRows][kBlockRows];
  int32_t low[kTileRows][kBlockRows];
};

// The tiles' registers: 0 to 3 are sums, 4 activations' high halves, 5 their low ones, 6 and 7 weights.
template <class Weight>
void multiply_first() {
  if constexpr (Weight::kIsPacked) {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 5, 6);
  } else {
    _tile_dpbsud(0, 4, 6);
    _tile_dpbsud(1, 5, 6);
  }
}

template <class Weight>
void multiply_second() {
  if constexpr (Weight::kIsPacked) {
    _tile_dpbssd(2, 4, 7);
    _tile_dpbssd(3, 5, 7);
  } else {
    _tile_dpbsud(2, 4, 7);
    _tile_dpbsud(3, 5, 7);
  }
}

// sums[b] (+)= activations · weights[b] over `chunks` chunks. activations: [chunks][high, low][16][64]
template <class Weight, int kBlocks>
void multiply_tile(const int8_t* activations, const std::byte* const (&weights)[kBlocks], int64_t chunks, bool begins,
                   Sums (&sums)[kBlocks]) {
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
    _tile_loadd(5, activations + kTileBytes, 64);
    _tile_loadd(6, first, 64);
    multiply_first<Weight>();
    if constexpr (kBlocks == 2) {
      _tile_loadd(7, second, 64);
      multiply_second<Weight>();
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
template <class Weight>
void store_sums(const LinearTask& task, int64_t token, int64_t end, int64_t block, const Sums& sums,
                __m512 row_scale) {
  const int64_t row = block * kBlockRows;
  const __mmask16 lanes = lanes_below(task.layout->rows - row);
  const __m512 bias = task.bias == nullptr ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(lanes, task.bias + row);
  for (int64_t t = 0; t < end - token; ++t) {
    __m512i high = _mm512_load_si512(sums.high[t]), low = _mm512_load_si512(sums.low[t]);
    if constexpr (!Weight::kIsPacked) {
      const int32_t* offsets = task.segment_sums + (token + t) * 2;
      high = _mm512_add_epi32(high, _mm512_set1_epi32(offsets[0]));
      low = _mm512_add_epi32(low, _mm512_set1_epi32(offsets[1]));
    }
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
  const int64_t chunks = layout.columns / kAmxTileColumns;
  const int64_t passes = (chunks + kMaxChunksPerPass - 1) / kMaxChunksPerPass;
  const int64_t tile_bytes = kTileRows * 2 * layout.columns;
  alignas(64) std::byte int8[kBlocks][kMaxChunksPerPass * kTileBytes];
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
  for (int64_t pass = 0; pass < passes; ++pass) {
    const int64_t first = pass * chunks / passes, last = (pass + 1) * chunks / passes;
    const std::byte* weights[kBlocks];
    for (int b = 0; b < kBlocks; ++b) {
      if constexpr (Weight::kIsPacked) {
        requantize<Weight, 0>(layout, blocks[b], row_scales[b], 4, first * kChunkSegments, last * kChunkSegments,
                              int8[b]);
        weights[b] = int8[b];
      } else {
        weights[b] = blocks[b] + layout.weight_offset + first * kTileBytes;
      }
    }
    make_visible_to_tiles();
    const int8_t* activations = task.quantized_x + task.first_token / kTileRows * tile_bytes + first * 2 * kTileBytes;
    for (int64_t token = task.first_token, tile = 0; token < task.last_token; token += kTileRows, ++tile) {
      Sums(&tile_sums)[kBlocks] = sums[passes == 1 ? 0 : tile];
      multiply_tile<Weight, kBlocks>(activations + tile * tile_bytes, weights, last - first, pass == 0, tile_sums);
      if (last < chunks) continue;
      const int64_t end = token + kTileRows < task.last_token ? token + kTileRows : task.last_token;
      for (int b = 0; b < kBlocks; ++b) store_sums<Weight>(task, token, end, block + b, tile_sums[b], row_scales[b]);
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
  for (int64_t k = 0; k < columns; k += 16) largest = max_magnitude(largest, _mm512_loadu_ps(task.x + k));
  // As integers, which order NaNs above all else.
  const uint32_t bits = _mm512_reduce_max_epu32(_mm512_castps_si512(largest));
  float absmax;
  __builtin_memcpy(&absmax, &bits, sizeof absmax);
  constexpr float kSteps = 127 * 256 + 127;
  const bool is_zero = absmax < kSmallestAbsmax16;
  const __m512 inverse = _mm512_set1_ps(is_zero ? 0.0f : kSteps / absmax);
  const __m512i ones = _mm512_set1_epi8(1);

  __m512i high_sum = _mm512_setzero_si512(), low_sum = _mm512_setzero_si512();
  for (int64_t chunk = 0; chunk < columns / kAmxTileColumns; ++chunk) {
    __m256i highs[2], lows[2];
    for (int half = 0; half < 2; ++half) {
      const float* x = task.x + chunk * kAmxTileColumns + half * 32;
      const __m512i first = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), inverse));
      const __m512i second = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 16), inverse));
      const __m512i values =
          _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(first)), _mm512_cvtepi32_epi16(second), 1);
      highs[half] = _mm512_cvtepi16_epi8(_mm512_srai_epi16(_mm512_add_epi16(values, _mm512_set1_epi16(128)), 8));
      lows[half] = _mm512_cvtepi16_epi8(values);
    }
    const __m512i high = _mm512_inserti64x4(_mm512_castsi256_si512(highs[0]), highs[1], 1);
    const __m512i low = _mm512_inserti64x4(_mm512_castsi256_si512(lows[0]), lows[1], 1);
    int8_t* values = task.values + chunk * 2 * kTileBytes;
    _mm512_storeu_si512(values, high);
    _mm512_storeu_si512(values + kTileBytes, low);
    high_sum = _mm512_dpbusd_epi32(high_sum, ones, high);
    low_sum = _mm512_dpbusd_epi32(low_sum, ones, low);
  }
  task.scales[0] = is_zero ? 0.0f : absmax / kSteps;
  task.sums[0] = -128 * _mm512_reduce_add_epi32(high_sum);
  task.sums[1] = -128 * _mm512_reduce_add_epi32(low_sum);
}

}  // namespace inflight::cpu
