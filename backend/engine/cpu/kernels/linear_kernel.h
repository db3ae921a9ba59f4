#pragma once

#include <cstdint>

#include "engine/cpu/packed_layout.h"

// What linear.cc and linear_input.cc ask of each instruction set. Plain data and functions that are
// defined in one file only: see packed_layout.h for why.
namespace inflight::cpu {

// One rectangle of an output: rows of the matrix in whole panels, times tokens.
struct LinearTask {
  const PackedLayout* layout;
  const std::byte* panels;  // any alignment
  int64_t first_panel;
  int64_t last_panel;  // excluded
  int64_t first_token;
  int64_t last_token;  // excluded

  const float* x;  // float types: [tokens, columns], rows x_stride apart
  int64_t x_stride;
  const std::byte* x_tiles;      // linear_rounded_amx: bfloat16, [tokens / 16][columns / 32][16][32]
  const int8_t* quantized_x;     // integer types: [tokens, packed_columns], in [-127, 127]
  const float* segment_scales;   // [tokens, segments]: x is about scale * quantized_x
  const int32_t* segment_sums;   // [tokens, segments] of quantized_x, as quantize_token of the same ISA makes them
  const float* scaled_sums;      // [tokens, segments]: scale * sum

  float* y;  // [tokens, rows], rows y_stride apart
  int64_t y_stride;
  std::byte* activated;  // linear_rounded_amx: takes the place of y, or null; see linear_silu_and_multiply()
  const float* bias;     // [rows] or null
  bool accumulate;       // adds to y instead of overwriting it
  bool requantizes;      // linear_avx512, int4: see Precision::kRounded
};

void linear_portable(const LinearTask& task);
void linear_avx2(const LinearTask& task);
void linear_avx512(const LinearTask& task);

// For Precision::kRounded and inputs of InputForm::kTiles: at most kMaxAmxTaskTokens, from a multiple of
// kAmxTileTokens on.
inline constexpr int64_t kAmxTileTokens = 16;
inline constexpr int64_t kAmxTileColumns = 32;
inline constexpr int64_t kMaxAmxTaskTokens = 256;
void linear_rounded_amx(const LinearTask& task);

// Rounds one token's floats to bfloat16; `tiles` is where its first 32 columns lie in x_tiles.
void write_token_to_tiles_amx(const float* x, int64_t columns, std::byte* tiles);

// Quantizes one token's `layout`.columns floats for a matrix of `layout`, writing packed_columns values
// and a scale and two sums a segment: scale = absmax / 127, value = x / scale rounded to nearest even.
// A segment whose absmax is below kSmallestAbsmax becomes zeros; one with a NaN or an infinity gets a scale
// that is not finite.
inline constexpr float kSmallestAbsmax = 1e-36f;  // 127 / absmax must stay finite

struct QuantizeTask {
  const PackedLayout* layout;
  const float* x;
  int8_t* values;
  float* scales;
  int32_t* sums;
  float* scaled_sums;
};

void quantize_token_portable(const QuantizeTask& task);
void quantize_token_avx2(const QuantizeTask& task);
void quantize_token_avx512(const QuantizeTask& task);

}  // namespace inflight::cpu
