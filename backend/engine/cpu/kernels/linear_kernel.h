#pragma once

#include <cstdint>

#include "engine/cpu/packed_layout.h"

// What linear.cc and linear_input.cc ask of each instruction set. Plain data and functions that are
// defined in one file only: see packed_layout.h for why.
namespace inflight::cpu {

// One rectangle of an output: rows of the matrix in whole blocks, times tokens.
struct LinearTask {
  const PackedLayout* layout;
  const std::byte* blocks;  // any alignment
  int64_t first_block;
  int64_t last_block;  // excluded
  int64_t first_token;
  int64_t last_token;  // excluded

  const float* x;  // float types: [tokens, columns], rows x_stride apart
  int64_t x_stride;
  const int8_t* quantized_x;     // integer types: [tokens, packed_columns], in [-127, 127]; or see quantize_row_amx
  const float* segment_scales;   // [tokens, segments]: x is about scale * quantized_x
  const int32_t* segment_sums;   // [tokens, segments] of quantized_x; what quantize_row of the same ISA made of them
  const float* scaled_sums;      // [tokens, segments]: scale * sum

  float* y;  // [tokens, rows], rows y_stride apart
  int64_t y_stride;
  const float* bias;  // [rows] or null
  bool accumulate;    // adds to y instead of overwriting it
  bool requantizes;   // int4: see Precision::kRounded
};

void linear_portable(const LinearTask& task);
void linear_avx2(const LinearTask& task);
void linear_avx512(const LinearTask& task);

// Of the activations that linear_rounded_amx takes.
inline constexpr int64_t kAmxTileTokens = 16;
inline constexpr int64_t kAmxTileColumns = 64;
inline constexpr int64_t kMaxAmxTaskTokens = 256;

// For Precision::kRounded and inputs of InputForm::kTiles: at most kMaxAmxTaskTokens, from a multiple of
// kAmxTileTokens on.
void linear_rounded_amx(const LinearTask& task);

// Quantizes one row of `layout`.columns floats for a matrix of `layout`, writing packed_columns values
// and a scale and two sums a segment: scale = absmax / 127, value = x / scale rounded to nearest even.
// A segment whose absmax is below kSmallestAbsmax becomes zeros; one with a NaN or an infinity gets a scale
// that is not finite.
inline constexpr float kSmallestAbsmax = 1e-36f;    // 127 / absmax must stay finite
inline constexpr float kSmallestAbsmax16 = 1e-34f;  // for quantize_row_amx, which divides 2^15

struct QuantizeTask {
  const PackedLayout* layout;
  const float* x;
  int8_t* values;
  float* scales;
  int32_t* sums;
  float* scaled_sums;
};

void quantize_row_portable(const QuantizeTask& task);
void quantize_row_avx2(const QuantizeTask& task);
void quantize_row_avx512(const QuantizeTask& task);

// For linear_rounded_amx: one scale for the whole row, whose values are 16 bits, 256 * high + low. `values` is where
// the row's first 64 columns lie in tiles of 16 tokens, [columns / 64][high, low][16][64]; two sums, times -2^7.
void quantize_row_amx(const QuantizeTask& task);

}  // namespace inflight::cpu
