#pragma once

#include <immintrin.h>

#include "engine/cpu/kernels/linear_kernel.h"

// Integer weights as AVX-512 reads them. Each file that includes this has functions of its own, compiled with its
// own flags.
namespace inflight::cpu {
namespace {

__mmask16 lanes_below(int64_t count) { return static_cast<__mmask16>(count < 16 ? (1u << count) - 1 : 0xffff); }

struct Float16 {
  static constexpr int64_t kBytes = 2 * kBlockRows;
  static __m512 load(const std::byte* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
};

// Every type has: load() of columns 0-3 and 4-7 of an octet, 16 rows each.
struct Int8 {
  static constexpr bool kHasMinimum = false;
  static constexpr bool kIsPacked = false;
  static constexpr int kOffsetShift = 7;  // stored as q + 128
  static constexpr int64_t kOctetBytes = 128;
  static void load(const std::byte* p, __m512i& low, __m512i& high) {
    low = _mm512_loadu_si512(p);
    high = _mm512_loadu_si512(p + 64);
  }
};
struct Int4WithMinimum {
  static constexpr bool kHasMinimum = true;
  static constexpr bool kIsPacked = true;
  static constexpr int kOffsetShift = 0;
  static constexpr int64_t kOctetBytes = 64;
  static void load(const std::byte* p, __m512i& low, __m512i& high) {
    const __m512i nibble = _mm512_set1_epi8(0x0f);
    const __m512i both = _mm512_loadu_si512(p);
    low = _mm512_and_si512(both, nibble);
    high = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
  }
};
struct Int4 : Int4WithMinimum {
  static constexpr bool kHasMinimum = false;
  static constexpr int kOffsetShift = 3;  // q - 8
};

__m512 load_scales(const std::byte* scales, int64_t group, bool half) {
  if (half) return Float16::load(scales + group * 2 * kBlockRows);
  return _mm512_loadu_ps(scales + group * 4 * kBlockRows);
}

// As integers NaN > infinity > everything else.
__m512 max_magnitude(__m512 a, __m512 b) {
  return _mm512_castsi512_ps(
      _mm512_max_epu32(_mm512_castps_si512(_mm512_abs_ps(a)), _mm512_castps_si512(_mm512_abs_ps(b))));
}

// A group's scale and minimum of 16 rows: a weight is scale * q + minimum.
template <class Weight>
void load_group(const PackedLayout& layout, const std::byte* block, int64_t group, __m512& scale, __m512& minimum) {
  scale = load_scales(block, group, layout.half_scales);
  if constexpr (Weight::kHasMinimum) {
    minimum = load_scales(block + layout.minimum_offset, group, layout.half_scales);
  } else {
    minimum = _mm512_mul_ps(scale, _mm512_set1_ps(-8.0f));
  }
}

// For each row of a block the scale that makes its weights fit a byte. 126, not 127: requantize() rounds twice.
template <class Weight>
__m512 scales_of_rows(const PackedLayout& layout, const std::byte* block) {
  __m512 largest = _mm512_setzero_ps();
  for (int64_t group = 0; group < layout.groups; ++group) {
    __m512 scale, minimum;
    load_group<Weight>(layout, block, group, scale, minimum);
    const __m512 maximum = _mm512_fmadd_ps(scale, _mm512_set1_ps(15.0f), minimum);
    largest = max_magnitude(largest, max_magnitude(minimum, maximum));
  }
  const __mmask16 is_zero = _mm512_cmp_ps_mask(largest, _mm512_set1_ps(kSmallestAbsmax), _CMP_LT_OQ);
  return _mm512_maskz_div_ps(_mm512_knot(is_zero), largest, _mm512_set1_ps(126.0f));
}

// The low 16 bits of each lane, in both of its halves.
__m512i in_both_halves(__m512i x) {
  return _mm512_or_si512(_mm512_slli_epi32(x, 16), _mm512_and_si512(x, _mm512_set1_epi32(0xffff)));
}

__m512i requantize_quads(__m512i even, __m512i odd, __m512i factors, __m512i offsets) {
  const __m512i high_bytes = _mm512_set1_epi16(static_cast<int16_t>(0xff00));
  even = _mm512_srli_epi16(_mm512_add_epi16(_mm512_mullo_epi16(even, factors), offsets), 8);
  odd = _mm512_add_epi16(_mm512_mullo_epi16(odd, factors), offsets);
  return _mm512_or_si512(even, _mm512_and_si512(odd, high_bytes));
}

// Segments [first, last) of a block in the order in which Int8 stores them: kZero + weight / row_scale, rounded, as
// (q * factor + offset) >> 8 in 16 bits.
template <class Weight, int kZero>
void requantize(const PackedLayout& layout, const std::byte* block, __m512 row_scale, int64_t octets, int64_t first,
                int64_t last, std::byte* int8) {
  const __m512i nibble = _mm512_set1_epi16(0x0f);
  const __mmask16 is_zero = _mm512_cmp_ps_mask(row_scale, _mm512_setzero_ps(), _CMP_EQ_OQ);
  const __m512 zero = _mm512_set1_ps((static_cast<float>(kZero) + 0.5f) * 256.0f);
  const __m512 unit = _mm512_maskz_div_ps(_mm512_knot(is_zero), _mm512_set1_ps(256.0f), row_scale);
  const std::byte* weights = block + layout.weight_offset + first * octets * Weight::kOctetBytes;
  for (int64_t segment = first; segment < last; ++segment) {
    __m512 scale, minimum;
    load_group<Weight>(layout, block, segment / layout.segments_per_group, scale, minimum);
    const __m512i factors = in_both_halves(_mm512_cvtps_epi32(_mm512_mul_ps(scale, unit)));
    const __m512i offsets = in_both_halves(_mm512_cvtps_epi32(_mm512_fmadd_ps(minimum, unit, zero)));
    for (int64_t octet = 0; octet < octets; ++octet, weights += Weight::kOctetBytes, int8 += Int8::kOctetBytes) {
      const __m512i both = _mm512_loadu_si512(weights);
      const __m512i low = requantize_quads(_mm512_and_si512(both, nibble),
                                           _mm512_and_si512(_mm512_srli_epi16(both, 8), nibble), factors, offsets);
      const __m512i high = requantize_quads(_mm512_and_si512(_mm512_srli_epi16(both, 4), nibble),
                                            _mm512_srli_epi16(both, 12), factors, offsets);
      _mm512_store_si512(int8, low);
      _mm512_store_si512(int8 + 64, high);
    }
  }
}

}  // namespace
}  // namespace inflight::cpu
