#pragma once

#include <cstdint>
#include <vector>

#include "common/thread_pool.h"
#include "engine/cpu/cpu_features.h"
#include "engine/cpu/for_each_token.h"
#include "engine/cpu/kernels/linear_kernel.h"
#include "engine/cpu/packed_matrix.h"

namespace inflight::cpu {

// How matrices are multiplied. kRounded takes, where an instruction set has one, a way that is faster for many
// tokens: int4 weights are rounded to int8 with one scale a row (AVX-512), or all weights but float32 and float16, and
// what they are multiplied with, to bfloat16 (AMX). An output depends on this choice, but on nothing else in its batch.
enum class Precision { kExact, kRounded };

// What a linear layer reads: floats; int8 with a scale for each segment of columns; bfloat16 in tiles of 16 tokens.
enum class InputForm { kFloats, kSegments, kTiles };

InputForm input_form(const PackedLayout& layout, Precision precision, Isa isa);

// The input of one or more linear layers: float rows and, where kernels read another form (see InputForm), that one,
// made once for all matrices that take the same.
class LinearInput {
 public:
  // Allocates for this many tokens; only a matrix with unusual groups makes it grow later.
  LinearInput(int64_t max_tokens, int64_t max_columns);

  // rows: [tokens, columns], row_stride floats apart; they must stay as they are while the input is in
  // use. Call it again whenever they change.
  void set(const float* rows, int64_t tokens, int64_t columns, int64_t row_stride);

  // Makes the form that matrices of `layout` take, unless it is there or they have none.
  void quantize(const PackedLayout& layout, Precision precision, ThreadPool& pool, Isa isa);

  // Calls write(token), which writes that token's row of what set() was given, for every token and makes the form
  // that matrices of `layout` take, while the row is at hand.
  template <class Write>
  void produce(const PackedLayout& layout, Precision precision, ThreadPool& pool, Isa isa, const Write& write) {
    begin_quantize(layout, precision, isa);
    const bool quantizes = form_ != InputForm::kFloats;
    for_each_token(pool, tokens_, [&](int64_t token) {
      write(token);
      if (quantizes) quantize_token(token);
    });
  }

  int64_t tokens() const { return tokens_; }

  // All of a product with `weight`, for which quantize() or produce() was called last; its output is still to be set.
  LinearTask task(const PackedMatrix& weight) const;

  // For who writes tiles in place of produce().
  std::byte* begin_tiles(const PackedLayout& layout, Isa isa);

 private:
  struct alignas(64) CacheLine {
    std::byte bytes[64];
  };

  std::byte* values() { return values_.data()->bytes; }
  bool is_quantized_for(const PackedLayout& layout, InputForm form) const;
  void begin_quantize(const PackedLayout& layout, Precision precision, Isa isa);
  void quantize_token(int64_t token);

  const float* rows_ = nullptr;
  int64_t tokens_ = 0;
  int64_t columns_ = 0;
  int64_t row_stride_ = 0;

  InputForm form_ = InputForm::kFloats;
  PackedLayout quantized_layout_{};
  void (*quantize_token_)(const QuantizeTask&) = nullptr;
  std::vector<CacheLine> values_;  // int8, or tiles
  std::vector<float> scales_;
  std::vector<int32_t> sums_;
  std::vector<float> scaled_sums_;
};

}  // namespace inflight::cpu
