#pragma once

#include <immintrin.h>

#include "engine/cpu/kernels/linear_kernel.h"

// Integer weights as AVX-512 reads them. Each file that includes this has functions of its own, compiled with its
// own flags.
namespace inflight::cpu {
namespace {

__mmask16 lanes_below(int64_t count) { return static_cast<__mmask16>(count < 16 ? (1u << count) - 1 : 0xffff); }

struct Float16 {
  static constexpr int64_t kBytes = 2 * kPanelRows;
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
  if (half) return Float16::load(scales + group * 2 * kPanelRows);
  return _mm512_loadu_ps(scales + group * 4 * kPanelRows);
}

// A group's scale and minimum of 16 rows: a weight is scale * q + minimum.
template <class Weight>
void load_group(const PackedLayout& layout, const std::byte* panel, int64_t group, __m512& scale, __m512& minimum) {
  scale = load_scales(panel, group, layout.half_scales);
  if constexpr (Weight::kHasMinimum) {
    minimum = load_scales(panel + layout.minimum_offset, group, layout.half_scales);
  } else {
    minimum = _mm512_mul_ps(scale, _mm512_set1_ps(-static_cast<float>(1 << Weight::kOffsetShift)));
  }
}

}  // namespace
}  // namespace inflight::cpu
