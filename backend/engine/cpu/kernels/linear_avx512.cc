#include <immintrin.h>

#include "engine/cpu/kernels/integer_weights_avx512.h"
#include "engine/cpu/kernels/linear_kernel.h"

// Tiles of kTokens tokens times kPanels panels, whose sums stay in registers. Tile sizes only decide
// how often operands are loaded: each sum is built in the same order in all of them, so that a token's
// output does not depend on its batch.
namespace inflight::cpu {
namespace {

// Up to here the memory sets the pace, and it likes fewer panels read at the same time.
constexpr int64_t kMemoryBoundTokens = 2;

void store_sum(const LinearTask& task, int64_t token, int64_t panel, __m512 sum) {
  const int64_t row = panel * kPanelRows;
  const __mmask16 lanes = lanes_below(task.layout->rows - row);
  float* y = task.y + token * task.y_stride + row;
  if (task.bias != nullptr) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(lanes, task.bias + row));
  if (task.accumulate) sum = _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, y), sum);
  _mm512_mask_storeu_ps(y, lanes, sum);
}

// ---- float weights ----

constexpr int kFloatTokens = 6;
constexpr int kFloatPanels = 4;
constexpr int64_t kMaxColumnsPerPass = 512;  // so that the tile's weights stay in the second-level cache
constexpr int64_t kMaxPartialTokens = 64;

struct Float32 {
  static constexpr int64_t kBytes = 4 * kPanelRows;
  static __m512 load(const std::byte* p) { return _mm512_loadu_ps(p); }
};
struct BFloat16 {
  static constexpr int64_t kBytes = 2 * kPanelRows;
  static __m512 load(const std::byte* p) {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
  }
};

// Columns [first, last) of a tile; sums that are not complete wait in `partial`.
template <class Weight, int kTokens, int kPanels>
void float_tile(const LinearTask& task, int64_t token, int64_t panel, int64_t first, int64_t last, float* partial) {
  const std::byte* weights[kPanels];
  const std::byte* ahead[kPanels];  // of the next pass, or the next tile's first
  for (int p = 0; p < kPanels; ++p) {
    weights[p] = task.panels + (panel + p) * task.layout->panel_bytes;
    ahead[p] = weights[p] + (last < task.layout->columns ? last * Weight::kBytes : kPanels * task.layout->panel_bytes);
  }
  const float* x[kTokens];
  for (int t = 0; t < kTokens; ++t) x[t] = task.x + (token + t) * task.x_stride;

  __m512 sums[kTokens][kPanels];
  for (int t = 0; t < kTokens; ++t) {
    for (int p = 0; p < kPanels; ++p) {
      sums[t][p] = first == 0 ? _mm512_setzero_ps() : _mm512_loadu_ps(partial + (t * kPanels + p) * kPanelRows);
    }
  }
  for (int64_t k = first; k < last; ++k) {
    __m512 w[kPanels];
    for (int p = 0; p < kPanels; ++p) {
      w[p] = Weight::load(weights[p] + k * Weight::kBytes);
      _mm_prefetch(ahead[p] + (k - first) * Weight::kBytes, _MM_HINT_T1);
    }
    for (int t = 0; t < kTokens; ++t) {
      const __m512 value = _mm512_set1_ps(x[t][k]);
      for (int p = 0; p < kPanels; ++p) sums[t][p] = _mm512_fmadd_ps(w[p], value, sums[t][p]);
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int p = 0; p < kPanels; ++p) {
      if (last < task.layout->columns) {
        _mm512_storeu_ps(partial + (t * kPanels + p) * kPanelRows, sums[t][p]);
      } else {
        store_sum(task, token + t, panel + p, sums[t][p]);
      }
    }
  }
}

using FloatTile = void (*)(const LinearTask&, int64_t token, int64_t panel, int64_t first, int64_t last,
                           float* partial);

template <class Weight, int kPanels>
void multiply_float_panels(const LinearTask& task, int64_t panel) {
  static constexpr FloatTile kTiles[kFloatTokens] = {float_tile<Weight, 1, kPanels>, float_tile<Weight, 2, kPanels>,
                                                     float_tile<Weight, 3, kPanels>, float_tile<Weight, 4, kPanels>,
                                                     float_tile<Weight, 5, kPanels>, float_tile<Weight, 6, kPanels>};
  float partial[kMaxPartialTokens * kPanels * kPanelRows];
  const int64_t passes = (task.layout->columns + kMaxColumnsPerPass - 1) / kMaxColumnsPerPass;
  const int64_t columns_per_pass = (task.layout->columns + passes - 1) / passes;
  for (int64_t first_token = task.first_token; first_token < task.last_token; first_token += kMaxPartialTokens) {
    int64_t last_token = first_token + kMaxPartialTokens;
    if (last_token > task.last_token) last_token = task.last_token;
    for (int64_t k = 0; k < task.layout->columns; k += columns_per_pass) {
      int64_t last = k + columns_per_pass;
      if (last > task.layout->columns) last = task.layout->columns;
      for (int64_t token = first_token; token < last_token;) {
        const int64_t left = last_token - token;
        const int64_t tokens = left < kFloatTokens ? left : kFloatTokens;
        kTiles[tokens - 1](task, token, panel, k, last, partial + (token - first_token) * kPanels * kPanelRows);
        token += tokens;
      }
    }
  }
}

template <class Weight>
void multiply_floats(const LinearTask& task) {
  int64_t panel = task.first_panel;
  if (task.last_token - task.first_token > kMemoryBoundTokens) {
    for (; panel + kFloatPanels <= task.last_panel; panel += kFloatPanels) {
      multiply_float_panels<Weight, kFloatPanels>(task, panel);
    }
  }
  for (; panel + 2 <= task.last_panel; panel += 2) multiply_float_panels<Weight, 2>(task, panel);
  if (panel < task.last_panel) multiply_float_panels<Weight, 1>(task, panel);
}

// ---- integer weights ----

constexpr int kIntegerTokens = 6;
constexpr int kIntegerPanels = 2;           // also how far ahead weights are fetched from memory
constexpr int64_t kMaxSegmentsPerPass = 24;  // so that the tile's weights stay in the first-level cache
constexpr int kSumShift = 7;                // this file's segment_sums are times -2^7, int8's offset
constexpr int64_t kMaxPassTokens = 128;
constexpr int64_t kMinUnpackedTokens = 13;  // from here on int4 weights are unpacked once for all tiles

// Where a tile reads its panels' weights, the pass's first segment in front, and their scales and minimums, the
// matrix's first group in front.
template <int kPanels>
struct IntegerPanels {
  const std::byte* weights[kPanels];
  const std::byte* scales[kPanels];
  const std::byte* minimums[kPanels];
};

// Fetches what will be needed next, a few lines at a time.
struct Prefetch {
  const std::byte* next;
  int64_t lines_per_segment;  // 0 fetches nothing

  void operator()() {
    for (int64_t line = 0; line < lines_per_segment; ++line, next += 64) _mm_prefetch(next, _MM_HINT_T1);
  }
};

// Int4 or Int4WithMinimum, a byte for each column.
template <class Packed>
struct Unpacked : Int8 {
  static constexpr bool kHasMinimum = Packed::kHasMinimum;
  static constexpr int kOffsetShift = Packed::kOffsetShift;
};

// As integers NaN > infinity > everything else.
__m512 max_magnitude(__m512 a, __m512 b) {
  return _mm512_castsi512_ps(
      _mm512_max_epu32(_mm512_castps_si512(_mm512_abs_ps(a)), _mm512_castps_si512(_mm512_abs_ps(b))));
}

// For each row of a panel the scale that makes its weights fit a byte. 126, not 127: requantize() rounds twice.
template <class Weight>
__m512 scales_of_rows(const PackedLayout& layout, const std::byte* panel) {
  __m512 largest = _mm512_setzero_ps();
  for (int64_t group = 0; group < layout.groups; ++group) {
    __m512 scale, minimum;
    load_group<Weight>(layout, panel, group, scale, minimum);
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

// Segments [first, last) of a panel in the order in which Int8 stores them: 128 + weight / row_scale, rounded, as
// (q * factor + offset) >> 8 in 16 bits.
template <class Weight>
void requantize(const PackedLayout& layout, const std::byte* panel, __m512 row_scale, int64_t octets, int64_t first,
                int64_t last, std::byte* int8) {
  const __m512i nibble = _mm512_set1_epi16(0x0f);
  const __mmask16 is_zero = _mm512_cmp_ps_mask(row_scale, _mm512_setzero_ps(), _CMP_EQ_OQ);
  const __m512 zero = _mm512_set1_ps((128.0f + 0.5f) * 256.0f);
  const __m512 unit = _mm512_maskz_div_ps(_mm512_knot(is_zero), _mm512_set1_ps(256.0f), row_scale);
  const std::byte* weights = panel + layout.weight_offset + first * octets * Weight::kOctetBytes;
  for (int64_t segment = first; segment < last; ++segment) {
    __m512 scale, minimum;
    load_group<Weight>(layout, panel, segment / layout.segments_per_group, scale, minimum);
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

__m512i broadcast_quad(const int8_t* x) {
  int32_t quad;
  __builtin_memcpy(&quad, x, sizeof quad);
  return _mm512_set1_epi32(quad);
}

// dots[t][p] = Σ q · x over one segment, q being what Weight stores minus its offset.
template <class Weight, int kTokens, int kPanels>
[[gnu::always_inline]] inline void multiply_segment(const std::byte* const (&weights)[kPanels], int64_t octets,
                                                    const int8_t* x, int64_t x_stride, const int32_t* x_sums,
                                                    int64_t segments, __m512i (&dots)[kTokens][kPanels]) {
  for (int t = 0; t < kTokens; ++t) {
    __m512i start = _mm512_setzero_si512();
    if constexpr (Weight::kOffsetShift != 0) {
      start = _mm512_set1_epi32(x_sums[t * segments]);
      if constexpr (Weight::kOffsetShift != kSumShift)
        start = _mm512_srai_epi32(start, kSumShift - Weight::kOffsetShift);
    }
    for (int p = 0; p < kPanels; ++p) dots[t][p] = start;
  }
#pragma GCC unroll 4
  for (int64_t octet = 0; octet < octets; ++octet) {
    __m512i low[kPanels], high[kPanels];
    for (int p = 0; p < kPanels; ++p) Weight::load(weights[p] + octet * Weight::kOctetBytes, low[p], high[p]);
    for (int t = 0; t < kTokens; ++t) {
      const __m512i quad = broadcast_quad(x + t * x_stride + octet * 8);
      for (int p = 0; p < kPanels; ++p) dots[t][p] = _mm512_dpbusd_epi32(dots[t][p], low[p], quad);
    }
    for (int t = 0; t < kTokens; ++t) {
      const __m512i quad = broadcast_quad(x + t * x_stride + octet * 8 + 4);
      for (int p = 0; p < kPanels; ++p) dots[t][p] = _mm512_dpbusd_epi32(dots[t][p], high[p], quad);
    }
  }
}

// Segments [first, last) of a tile; sums that are not complete wait in `partial`.
// kOctets: of columns in a segment; 0 → any, as the layout says. kScalesRows: a row has one scale, float32, and no
// minimum, which is applied to the complete sum.
template <class Weight, bool kScalesRows, int kOctets, int kTokens, int kPanels>
void integer_tile(const LinearTask& task, const IntegerPanels<kPanels>& source, int64_t token, int64_t panel,
                  int64_t first, int64_t last, Prefetch prefetch, float* partial) {
  const PackedLayout& layout = *task.layout;
  const int64_t octets = kOctets == 0 ? layout.segment_columns / 8 : kOctets;
  const int64_t segments = layout.groups * layout.segments_per_group;
  const IntegerPanels<kPanels> panels = source;
  const int8_t* x = task.quantized_x + token * layout.packed_columns + first * octets * 8;
  const float* x_scales = task.segment_scales + token * segments;
  const float* x_scaled_sums = task.scaled_sums + token * segments;
  const int32_t* x_sums = task.segment_sums + token * segments;

  __m512 sums[kTokens][kPanels];
  for (int t = 0; t < kTokens; ++t) {
    for (int p = 0; p < kPanels; ++p) {
      sums[t][p] = first == 0 ? _mm512_setzero_ps() : _mm512_loadu_ps(partial + (t * kPanels + p) * kPanelRows);
    }
  }
  int64_t offset = 0;
  int64_t group = first / layout.segments_per_group;
  int64_t left_of_group = layout.segments_per_group - first % layout.segments_per_group;
  for (int64_t segment = first; segment < last; ++segment, x += octets * 8) {
    const std::byte* weights[kPanels];
    for (int p = 0; p < kPanels; ++p) weights[p] = panels.weights[p] + offset;
    prefetch();
    offset += octets * Weight::kOctetBytes;
    __m512i dots[kTokens][kPanels];
    multiply_segment<Weight>(weights, octets, x, layout.packed_columns, x_sums + segment, segments, dots);
    for (int p = 0; p < kPanels; ++p) {
      if constexpr (kScalesRows) {
        for (int t = 0; t < kTokens; ++t) {
          const __m512 x_scale = _mm512_set1_ps(x_scales[t * segments + segment]);
          sums[t][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[t][p]), x_scale, sums[t][p]);
        }
        continue;
      }
      const __m512 scale = load_scales(panels.scales[p], group, layout.half_scales);
      for (int t = 0; t < kTokens; ++t) {
        const __m512 x_scale = _mm512_set1_ps(x_scales[t * segments + segment]);
        sums[t][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[t][p]), _mm512_mul_ps(scale, x_scale), sums[t][p]);
      }
      if constexpr (Weight::kHasMinimum) {
        const __m512 minimum = load_scales(panels.minimums[p], group, layout.half_scales);
        for (int t = 0; t < kTokens; ++t) {
          sums[t][p] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(x_scaled_sums[t * segments + segment]), sums[t][p]);
        }
      }
    }
    if (--left_of_group == 0) {
      left_of_group = layout.segments_per_group;
      ++group;
    }
  }
  for (int p = 0; p < kPanels; ++p) {
    for (int t = 0; t < kTokens; ++t) {
      if (last < segments) {
        _mm512_storeu_ps(partial + (t * kPanels + p) * kPanelRows, sums[t][p]);
      } else if constexpr (kScalesRows) {
        store_sum(task, token + t, panel + p, _mm512_mul_ps(sums[t][p], load_scales(panels.scales[p], 0, false)));
      } else {
        store_sum(task, token + t, panel + p, sums[t][p]);
      }
    }
  }
}

template <int kPanels>
using IntegerTile = void (*)(const LinearTask&, const IntegerPanels<kPanels>&, int64_t token, int64_t panel,
                             int64_t first, int64_t last, Prefetch prefetch, float* partial);

template <class Weight>
void unpack(const std::byte* weights, int64_t octets, std::byte* unpacked) {
  for (int64_t octet = 0; octet < octets; ++octet) {
    __m512i low, high;
    Weight::load(weights + octet * Weight::kOctetBytes, low, high);
    _mm512_store_si512(unpacked + octet * 128, low);
    _mm512_store_si512(unpacked + octet * 128 + 64, high);
  }
}

// One pass over all tokens, which are at most kMaxPassTokens.
template <class Weight, bool kScalesRows, int kOctets, int kPanels>
void multiply_pass(const LinearTask& task, const IntegerPanels<kPanels>& source, int64_t panel, int64_t first_token,
                   int64_t last_token, int64_t first, int64_t last, Prefetch prefetch, float* partial) {
  static constexpr IntegerTile<kPanels> kTiles[kIntegerTokens] = {
      integer_tile<Weight, kScalesRows, kOctets, 1, kPanels>, integer_tile<Weight, kScalesRows, kOctets, 2, kPanels>,
      integer_tile<Weight, kScalesRows, kOctets, 3, kPanels>, integer_tile<Weight, kScalesRows, kOctets, 4, kPanels>,
      integer_tile<Weight, kScalesRows, kOctets, 5, kPanels>, integer_tile<Weight, kScalesRows, kOctets, 6, kPanels>};
  for (int64_t token = first_token; token < last_token;) {
    const int64_t left = last_token - token;
    const int64_t tokens = left < kIntegerTokens ? left : kIntegerTokens;
    kTiles[tokens - 1](task, source, token, panel, first, last, prefetch, partial);
    prefetch.lines_per_segment = 0;
    partial += tokens * kPanels * kPanelRows;
    token += tokens;
  }
}

template <class Weight, int kOctets, int kPanels>
void multiply_integer_panels(const LinearTask& task, int64_t panel) {
  const PackedLayout& layout = *task.layout;
  const int64_t octets = kOctets == 0 ? layout.segment_columns / 8 : kOctets;
  const int64_t segments = layout.groups * layout.segments_per_group;
  const int64_t panel_lines = kPanels * layout.panel_bytes / 64;
  const std::byte* panels = task.panels + panel * layout.panel_bytes;
  const bool has_row_scales = !layout.half_scales && layout.groups == 1;
  float partial[kMaxPassTokens * kPanels * kPanelRows];
  float row_scales[kPanels][kPanelRows];
  if constexpr (Weight::kIsPacked) {
    if (task.requantizes) {
      for (int p = 0; p < kPanels; ++p) {
        _mm512_storeu_ps(row_scales[p], scales_of_rows<Weight>(layout, panels + p * layout.panel_bytes));
      }
    }
  }
  alignas(64) std::byte int8[kPanels][kMaxSegmentsPerPass * 32 * kPanelRows];
  for (int64_t first_token = task.first_token; first_token < task.last_token; first_token += kMaxPassTokens) {
    int64_t last_token = first_token + kMaxPassTokens;
    if (last_token > task.last_token) last_token = task.last_token;
    const int64_t tokens = last_token - first_token;
    const bool is_one_tile = tokens <= kIntegerTokens && !task.requantizes;
    const int64_t passes = is_one_tile ? 1 : (segments + kMaxSegmentsPerPass - 1) / kMaxSegmentsPerPass;
    Prefetch prefetch = {panels + kIntegerPanels * layout.panel_bytes, (panel_lines + segments - 1) / segments};
    for (int64_t pass = 0; pass < passes; ++pass) {
      const int64_t first = pass * segments / passes, last = (pass + 1) * segments / passes;
      IntegerPanels<kPanels> source;
      for (int p = 0; p < kPanels; ++p) {
        source.scales[p] = panels + p * layout.panel_bytes;
        source.minimums[p] = source.scales[p] + layout.minimum_offset;
        source.weights[p] = source.scales[p] + layout.weight_offset + first * octets * Weight::kOctetBytes;
      }
      const auto multiply = [&](auto multiply_pass) {
        multiply_pass(task, source, panel, first_token, last_token, first, last, prefetch, partial);
      };
      if constexpr (Weight::kIsPacked) {
        if (task.requantizes) {
          for (int p = 0; p < kPanels; ++p) {
            requantize<Weight>(layout, source.scales[p], _mm512_loadu_ps(row_scales[p]), octets, first, last, int8[p]);
            source.weights[p] = int8[p];
            source.scales[p] = reinterpret_cast<const std::byte*>(row_scales[p]);
          }
          multiply(multiply_pass<Int8, true, kOctets, kPanels>);
        } else if (tokens >= kMinUnpackedTokens) {
          for (int p = 0; p < kPanels; ++p) {
            unpack<Weight>(source.weights[p], (last - first) * octets, int8[p]);
            source.weights[p] = int8[p];
          }
          multiply(multiply_pass<Unpacked<Weight>, false, kOctets, kPanels>);
        } else {
          multiply(multiply_pass<Weight, false, kOctets, kPanels>);
        }
      } else if (has_row_scales) {
        multiply(multiply_pass<Weight, true, kOctets, kPanels>);
      } else {
        multiply(multiply_pass<Weight, false, kOctets, kPanels>);
      }
      prefetch.next += prefetch.lines_per_segment * 64 * (last - first);
    }
  }
}

template <class Weight, int kOctets>
void multiply_segments(const LinearTask& task) {
  int64_t panel = task.first_panel;
  if (task.last_token - task.first_token > kMemoryBoundTokens) {
    for (; panel + kIntegerPanels <= task.last_panel; panel += kIntegerPanels) {
      multiply_integer_panels<Weight, kOctets, kIntegerPanels>(task, panel);
    }
  }
  for (; panel < task.last_panel; ++panel) multiply_integer_panels<Weight, kOctets, 1>(task, panel);
}

template <class Weight>
void multiply_integers(const LinearTask& task) {
  if (task.layout->segment_columns == 32) {
    multiply_segments<Weight, 4>(task);
  } else {
    multiply_segments<Weight, 0>(task);
  }
}

}  // namespace

void linear_avx512(const LinearTask& task) {
  switch (task.layout->type) {
    case WeightType::kFloat32: return multiply_floats<Float32>(task);
    case WeightType::kBFloat16: return multiply_floats<BFloat16>(task);
    case WeightType::kFloat16: return multiply_floats<Float16>(task);
    case WeightType::kInt8: return multiply_integers<Int8>(task);
    case WeightType::kInt4:
      return task.layout->has_minimum ? multiply_integers<Int4WithMinimum>(task) : multiply_integers<Int4>(task);
  }
}

namespace {

// The lanes of four vectors, combined by `combine`: one result a vector, in the low 128 bits and in all others.
template <class Combine>
__m512i reduce_each(__m512i a, __m512i b, __m512i c, __m512i d, const Combine& combine) {
  const __m512i ab = combine(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
  const __m512i cd = combine(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
  __m512i all = combine(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
  all = combine(all, _mm512_shuffle_i32x4(all, all, 0x4e));
  return combine(all, _mm512_shuffle_i32x4(all, all, 0xb1));
}

// Four neighboring segments of 32 columns.
void quantize_four_segments(const QuantizeTask& task, const float* x, int64_t segment, int8_t* values) {
  __m512 halves[4][2];
  __m512i largest[4];
  for (int i = 0; i < 4; ++i) {
    for (int half = 0; half < 2; ++half) halves[i][half] = _mm512_loadu_ps(x + i * 32 + half * 16);
    largest[i] = _mm512_castps_si512(max_magnitude(halves[i][0], halves[i][1]));
  }
  const auto max = [](__m512i a, __m512i b) { return _mm512_max_epu32(a, b); };
  const __m512i maxima = reduce_each(largest[0], largest[1], largest[2], largest[3], max);
  const __m128 absmax = _mm_castsi128_ps(_mm512_castsi512_si128(maxima));
  const __mmask8 is_zero = _mm_cmp_ps_mask(absmax, _mm_set1_ps(kSmallestAbsmax), _CMP_LT_OQ);
  const __m128 steps = _mm_set1_ps(127.0f);
  const __m128 scales = _mm_mask_mov_ps(_mm_div_ps(absmax, steps), is_zero, _mm_setzero_ps());
  const __m512 inverses = _mm512_broadcast_f32x4(_mm_mask_mov_ps(_mm_div_ps(steps, absmax), is_zero, _mm_setzero_ps()));

  const __m512 inverse[4] = {_mm512_permute_ps(inverses, 0x00), _mm512_permute_ps(inverses, 0x55),
                             _mm512_permute_ps(inverses, 0xaa), _mm512_permute_ps(inverses, 0xff)};
  __m512i sums[4];
  for (int i = 0; i < 4; ++i) {
    const __m512i low = _mm512_cvtps_epi32(_mm512_mul_ps(halves[i][0], inverse[i]));
    const __m512i high = _mm512_cvtps_epi32(_mm512_mul_ps(halves[i][1], inverse[i]));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(values + i * 32), _mm512_cvtepi32_epi8(low));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(values + i * 32 + 16), _mm512_cvtepi32_epi8(high));
    sums[i] = _mm512_add_epi32(low, high);
  }
  const auto add = [](__m512i a, __m512i b) { return _mm512_add_epi32(a, b); };
  const __m128i sum = _mm512_castsi512_si128(reduce_each(sums[0], sums[1], sums[2], sums[3], add));
  _mm_storeu_ps(task.scales + segment, scales);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(task.sums + segment),
                   _mm_sub_epi32(_mm_setzero_si128(), _mm_slli_epi32(sum, kSumShift)));
  _mm_storeu_ps(task.scaled_sums + segment, _mm_mul_ps(scales, _mm_cvtepi32_ps(sum)));
}

}  // namespace

void quantize_token_avx512(const QuantizeTask& task) {
  const PackedLayout& layout = *task.layout;
  const int64_t group_columns = layout.columns / layout.groups;
  int8_t* values = task.values;
  int64_t segment = 0;
  if (layout.segment_columns == 32 && layout.packed_columns == layout.columns) {
    const int64_t segments = layout.columns / 32;
    for (; segment + 4 <= segments; segment += 4) {
      quantize_four_segments(task, task.x + segment * 32, segment, values + segment * 32);
    }
    if (segment == segments) return;
    values += segment * 32;
  }
  for (int64_t group = segment / layout.segments_per_group; group < layout.groups; ++group) {
    int64_t s = segment % layout.segments_per_group;
    const float* x = task.x + group * group_columns + s * layout.segment_columns;
    int64_t left = group_columns - s * layout.segment_columns;
    for (; s < layout.segments_per_group; ++s, ++segment) {
      const int64_t columns = left < layout.segment_columns ? left : layout.segment_columns;
      const __m512 low = _mm512_maskz_loadu_ps(lanes_below(columns), x);
      const __m512 high = _mm512_maskz_loadu_ps(columns > 16 ? lanes_below(columns - 16) : 0, x + 16);
      const __m512i magnitude = _mm512_castps_si512(max_magnitude(low, high));
      const float absmax = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(_mm512_reduce_max_epu32(magnitude))));
      const bool is_zero = absmax < kSmallestAbsmax;
      const float scale = is_zero ? 0.0f : absmax / 127.0f;
      const __m512 inverse = _mm512_set1_ps(is_zero ? 0.0f : 127.0f / absmax);
      const __m512i low_values = _mm512_cvtps_epi32(_mm512_mul_ps(low, inverse));
      const __m512i high_values = _mm512_cvtps_epi32(_mm512_mul_ps(high, inverse));
      const int32_t sum = _mm512_reduce_add_epi32(_mm512_add_epi32(low_values, high_values));
      _mm512_mask_cvtepi32_storeu_epi8(values, lanes_below(layout.segment_columns), low_values);
      if (layout.segment_columns > 16) {
        _mm512_mask_cvtepi32_storeu_epi8(values + 16, lanes_below(layout.segment_columns - 16), high_values);
      }
      task.scales[segment] = scale;
      task.sums[segment] = static_cast<int32_t>(0u - (static_cast<uint32_t>(sum) << kSumShift));
      task.scaled_sums[segment] = scale * static_cast<float>(sum);
      x += columns;
      left -= columns;
      values += layout.segment_columns;
    }
  }
}

}  // namespace inflight::cpu
