#include <immintrin.h>

#include "engine/cpu/kernels/linear_kernel.h"

// Tiles of kTokens tokens times one panel, which is two registers of 8 rows. Tile sizes only decide
// how often operands are loaded: each sum is built in the same order in all of them, so that a token's
// output does not depend on its batch.
namespace inflight::cpu {
namespace {

constexpr int kHalves = 2;  // of a panel
constexpr int kHalfRows = 8;

// Row masks for the last, incomplete register: kLaneMask + 8 - count is all ones in `count` lanes.
alignas(32) constexpr int32_t kLaneMask[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

__m256i lanes_below(int64_t count) {
  if (count < 0) count = 0;
  if (count > kHalfRows) count = kHalfRows;
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kLaneMask + kHalfRows - count));
}

void store_sum(const LinearTask& task, int64_t token, int64_t row, __m256 sum) {
  const __m256i lanes = lanes_below(task.layout->rows - row);
  if (_mm256_testz_si256(lanes, lanes)) return;
  float* y = task.y + token * task.y_stride + row;
  if (task.bias != nullptr) sum = _mm256_add_ps(sum, _mm256_maskload_ps(task.bias + row, lanes));
  if (task.accumulate) sum = _mm256_add_ps(_mm256_maskload_ps(y, lanes), sum);
  _mm256_maskstore_ps(y, lanes, sum);
}

using TileFunction = void (*)(const LinearTask&, int64_t token, int64_t panel);

// Calls tiles[tokens - 1] until all tokens of all panels are done.
template <int kMaxTokens>
void multiply(const LinearTask& task, const TileFunction (&tiles)[kMaxTokens]) {
  for (int64_t panel = task.first_panel; panel < task.last_panel; ++panel) {
    for (int64_t token = task.first_token; token < task.last_token;) {
      const int64_t left = task.last_token - token;
      const int64_t tokens = left < kMaxTokens ? left : kMaxTokens;
      tiles[tokens - 1](task, token, panel);
      token += tokens;
    }
  }
}

// ---- float weights ----

struct Float32 {
  static constexpr int64_t kBytes = 4;
  static __m256 load(const std::byte* p) { return _mm256_loadu_ps(reinterpret_cast<const float*>(p)); }
};
struct BFloat16 {
  static constexpr int64_t kBytes = 2;
  static __m256 load(const std::byte* p) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
  }
};
struct Float16 {
  static constexpr int64_t kBytes = 2;
  static __m256 load(const std::byte* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
};

template <class Weight, int kTokens>
void float_tile(const LinearTask& task, int64_t token, int64_t panel) {
  const std::byte* weights = task.panels + panel * task.layout->panel_bytes;
  const float* x[kTokens];
  for (int t = 0; t < kTokens; ++t) x[t] = task.x + (token + t) * task.x_stride;

  __m256 sums[kTokens][kHalves];
  for (int t = 0; t < kTokens; ++t) sums[t][0] = sums[t][1] = _mm256_setzero_ps();
  for (int64_t k = 0; k < task.layout->columns; ++k, weights += kPanelRows * Weight::kBytes) {
    const __m256 first = Weight::load(weights);
    const __m256 second = Weight::load(weights + kHalfRows * Weight::kBytes);
    for (int t = 0; t < kTokens; ++t) {
      const __m256 value = _mm256_broadcast_ss(x[t] + k);
      sums[t][0] = _mm256_fmadd_ps(first, value, sums[t][0]);
      sums[t][1] = _mm256_fmadd_ps(second, value, sums[t][1]);
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int h = 0; h < kHalves; ++h) store_sum(task, token + t, panel * kPanelRows + h * kHalfRows, sums[t][h]);
  }
}

template <class Weight>
void multiply_floats(const LinearTask& task) {
  static constexpr TileFunction kTiles[] = {float_tile<Weight, 1>, float_tile<Weight, 2>, float_tile<Weight, 3>,
                                            float_tile<Weight, 4>, float_tile<Weight, 5>, float_tile<Weight, 6>};
  multiply(task, kTiles);
}

// ---- integer weights ----

__m256i load_256(const std::byte* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

__m256i add_pairs(__m256i sums_of_two) { return _mm256_madd_epi16(sums_of_two, _mm256_set1_epi16(1)); }

// Columns 0-3 (low) and 4-7 (high) of an octet of columns, for 8 rows.
struct Octet {
  __m256i low;
  __m256i high;
};

// Every type has: load() of an octet, and the dot products of its 8 rows with eight activations in
// [-127, 127]. maddubs multiplies unsigned by signed bytes and must not exceed 16 bits in a sum of two.
struct Int8 {
  static constexpr bool kHasMinimum = false;
  static constexpr int kOffset = 0;
  static constexpr int64_t kOctetBytes = 8 * kPanelRows;
  static Octet load(const std::byte* p) {
    const __m256i sign = _mm256_set1_epi8(static_cast<char>(0x80));  // q + 128 → q
    return {_mm256_xor_si256(load_256(p), sign), _mm256_xor_si256(load_256(p + 64), sign)};
  }
  // |q| times x with the sign of q: sums of two are at most 2 * 128 * 127.
  static __m256i dot(__m256i q, __m256i x) {
    return add_pairs(_mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(x, q)));
  }
  static __m256i dot(const Octet& q, __m256i x_low, __m256i x_high) {
    return _mm256_add_epi32(dot(q.low, x_low), dot(q.high, x_high));
  }
};
struct Int4WithMinimum {
  static constexpr bool kHasMinimum = true;
  static constexpr int kOffset = 0;
  static constexpr int64_t kOctetBytes = 4 * kPanelRows;
  static Octet load(const std::byte* p) {
    const __m256i nibble = _mm256_set1_epi8(0x0f);
    const __m256i both = load_256(p);
    return {_mm256_and_si256(both, nibble), _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble)};
  }
  static __m256i dot(const Octet& q, __m256i x_low, __m256i x_high) {
    return add_pairs(_mm256_add_epi16(_mm256_maddubs_epi16(q.low, x_low), _mm256_maddubs_epi16(q.high, x_high)));
  }
};
struct Int4 : Int4WithMinimum {
  static constexpr bool kHasMinimum = false;
  static constexpr int kOffset = 8;
};

__m256 load_scales(const std::byte* scales, int64_t element, bool half) {
  return half ? Float16::load(scales + element * 2) : Float32::load(scales + element * 4);
}

__m256i broadcast_quad(const int8_t* x) {
  int32_t quad;
  __builtin_memcpy(&quad, x, sizeof quad);
  return _mm256_set1_epi32(quad);
}

template <class Weight, int kTokens>
void integer_tile(const LinearTask& task, int64_t token, int64_t panel) {
  const PackedLayout& layout = *task.layout;
  const int64_t segments = layout.groups * layout.segments_per_group;
  const int64_t octets = layout.segment_columns / 8;
  const std::byte* scales = task.panels + panel * layout.panel_bytes;
  const std::byte* weights = scales + layout.weight_offset;

  __m256 sums[kTokens][kHalves];
  for (int t = 0; t < kTokens; ++t) sums[t][0] = sums[t][1] = _mm256_setzero_ps();
  for (int64_t segment = 0; segment < segments; ++segment, weights += octets * Weight::kOctetBytes) {
    const int8_t* x = task.quantized_x + token * layout.packed_columns + segment * layout.segment_columns;
    const float* x_scale = task.segment_scales + token * segments + segment;
    const float* x_scaled_sum = task.scaled_sums + token * segments + segment;
    const int32_t* x_sum = task.segment_sums + token * segments + segment;
    for (int h = 0; h < kHalves; ++h) {
      __m256i dots[kTokens];
      for (int t = 0; t < kTokens; ++t) dots[t] = _mm256_set1_epi32(-Weight::kOffset * x_sum[t * segments]);
      for (int64_t octet = 0; octet < octets; ++octet) {
        const Octet q = Weight::load(weights + octet * Weight::kOctetBytes + h * 4 * kHalfRows);
        for (int t = 0; t < kTokens; ++t) {
          const int8_t* octet_x = x + t * layout.packed_columns + octet * 8;
          dots[t] = _mm256_add_epi32(dots[t], Weight::dot(q, broadcast_quad(octet_x), broadcast_quad(octet_x + 4)));
        }
      }
      const int64_t element = segment / layout.segments_per_group * kPanelRows + h * kHalfRows;
      const __m256 scale = load_scales(scales, element, layout.half_scales);
      for (int t = 0; t < kTokens; ++t) {
        const __m256 both_scales = _mm256_mul_ps(scale, _mm256_broadcast_ss(x_scale + t * segments));
        sums[t][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[t]), both_scales, sums[t][h]);
      }
      if constexpr (Weight::kHasMinimum) {
        const __m256 minimum = load_scales(scales + layout.minimum_offset, element, layout.half_scales);
        for (int t = 0; t < kTokens; ++t) {
          sums[t][h] = _mm256_fmadd_ps(minimum, _mm256_broadcast_ss(x_scaled_sum + t * segments), sums[t][h]);
        }
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int h = 0; h < kHalves; ++h) store_sum(task, token + t, panel * kPanelRows + h * kHalfRows, sums[t][h]);
  }
}

template <class Weight>
void multiply_integers(const LinearTask& task) {
  static constexpr TileFunction kTiles[] = {integer_tile<Weight, 1>, integer_tile<Weight, 2>, integer_tile<Weight, 3>,
                                            integer_tile<Weight, 4>};
  multiply(task, kTiles);
}

uint32_t horizontal_max(__m256i values) {
  __m128i four = _mm_max_epu32(_mm256_castsi256_si128(values), _mm256_extracti128_si256(values, 1));
  four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4e));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_max_epu32(four, _mm_shuffle_epi32(four, 0xb1))));
}

int32_t horizontal_sum(__m256i values) {
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(values), _mm256_extracti128_si256(values, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}

// Eight int32 in int8's range to 8 bytes.
void store_bytes(int8_t* out, __m256i values) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(values), _mm256_extracti128_si256(values, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out), _mm_packs_epi16(words, words));
}

}  // namespace

void linear_avx2(const LinearTask& task) {
  switch (task.layout->type) {
    case WeightType::kFloat32: return multiply_floats<Float32>(task);
    case WeightType::kBFloat16: return multiply_floats<BFloat16>(task);
    case WeightType::kFloat16: return multiply_floats<Float16>(task);
    case WeightType::kInt8: return multiply_integers<Int8>(task);
    case WeightType::kInt4:
      return task.layout->has_minimum ? multiply_integers<Int4WithMinimum>(task) : multiply_integers<Int4>(task);
  }
}

void quantize_token_avx2(const QuantizeTask& task) {
  constexpr int64_t kMaxVectors = 4;  // of 8 columns in a segment
  const PackedLayout& layout = *task.layout;
  const int64_t group_columns = layout.columns / layout.groups;
  const int64_t vectors = layout.segment_columns / 8;
  const __m256i magnitude_bits = _mm256_set1_epi32(0x7fffffff);
  int8_t* values = task.values;
  int64_t segment = 0;
  for (int64_t group = 0; group < layout.groups; ++group) {
    const float* x = task.x + group * group_columns;
    int64_t left = group_columns;
    for (int64_t s = 0; s < layout.segments_per_group; ++s, ++segment) {
      __m256 x_vectors[kMaxVectors];
      __m256i magnitude = _mm256_setzero_si256();
      for (int64_t v = 0; v < vectors; ++v) {
        x_vectors[v] = _mm256_maskload_ps(x + v * 8, lanes_below(left - v * 8));
        // As integers NaN > infinity > everything else.
        magnitude = _mm256_max_epu32(magnitude, _mm256_and_si256(_mm256_castps_si256(x_vectors[v]), magnitude_bits));
      }
      const float absmax = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(horizontal_max(magnitude))));
      const bool is_zero = absmax < kSmallestAbsmax;
      const float scale = is_zero ? 0.0f : absmax / 127.0f;
      const __m256 inverse = _mm256_set1_ps(is_zero ? 0.0f : 127.0f / absmax);
      __m256i sums = _mm256_setzero_si256();
      for (int64_t v = 0; v < vectors; ++v) {
        const __m256i rounded = _mm256_cvtps_epi32(_mm256_mul_ps(x_vectors[v], inverse));
        sums = _mm256_add_epi32(sums, rounded);
        store_bytes(values + v * 8, rounded);
      }
      const int32_t sum = horizontal_sum(sums);
      task.scales[segment] = scale;
      task.sums[segment] = sum;
      task.scaled_sums[segment] = scale * static_cast<float>(sum);
      x += layout.segment_columns;
      left -= layout.segment_columns;
      values += layout.segment_columns;
    }
  }
}

}  // namespace inflight::cpu
