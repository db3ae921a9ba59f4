#pragma once

#include <cstdint>
#include <vector>

#include "common/thread_pool.h"
#include "engine/cpu/cpu_features.h"
#include "engine/cpu/for_each_row.h"
#include "engine/cpu/kernels/linear_kernel.h"
#include "engine/cpu/packed_layout.h"

namespace inflight::cpu {

// How integer matrices are multiplied. kRounded takes, where an instruction set has one, a way that is faster for many
// tokens: int4 weights are rounded to int8 with one scale a row (AVX-512), and the matrix unit (AMX) takes activations
// of 16 bits with one scale a token. An output depends on this choice, but on nothing else in its batch.
enum class Precision { kExact, kRounded };

// What a linear layer reads: floats; int8 with a scale for each segment of columns; 16 bits in tiles of 16 tokens.
enum class InputForm { kFloats, kSegments, kTiles };

InputForm input_form(const PackedLayout& layout, Precision precision, Isa isa);

// The input of one or more linear layers: float rows and, for integer weights, their quantized
// form, made once for all matrices that take the same.
class LinearInput {
 public:
  // Allocates for this many tokens; only a matrix with unusual groups makes it grow later.
  LinearInput(int64_t max_tokens, int64_t max_columns);

  // rows: [tokens, columns], row_stride floats apart; they must stay as they are while the input is in
  // use. Call it again whenever they change.
  void set(const float* rows, int64_t tokens, int64_t columns, int64_t row_stride);

  // Makes the quantized form for matrices of `layout`, unless it is there or they have none.
  void quantize(const PackedLayout& layout, Precision precision, ThreadPool& pool, Isa isa);

  // Calls write(row), which writes that row of what set() was given, for every row and makes its quantized form, if
  // matrices of `layout` have one, while it is at hand.
  template <class Write>
  void produce(const PackedLayout& layout, Precision precision, ThreadPool& pool, Isa isa, const Write& write) {
    begin_quantize(layout, precision, isa);
    const bool quantizes = form_ != InputForm::kFloats;
    for_each_row(pool, tokens_, [&](int64_t row) {
      write(row);
      if (quantizes) quantize_row(row);
    });
  }

  int64_t tokens() const { return tokens_; }
  int64_t columns() const { return columns_; }
  const float* rows() const { return rows_; }
  int64_t row_stride() const { return row_stride_; }

  // What quantize() made for the last layout; see LinearTask for the shapes.
  const int8_t* quantized() const { return values_.data()->values; }
  const float* segment_scales() const { return scales_.data(); }
  const int32_t* segment_sums() const { return sums_.data(); }
  const float* scaled_sums() const { return scaled_sums_.data(); }

 private:
  struct alignas(64) CacheLine {
    int8_t values[64];
  };

  int8_t* values() { return values_.data()->values; }
  bool is_quantized_for(const PackedLayout& layout, InputForm form) const;
  void begin_quantize(const PackedLayout& layout, Precision precision, Isa isa);
  void quantize_row(int64_t row);

  const float* rows_ = nullptr;
  int64_t tokens_ = 0;
  int64_t columns_ = 0;
  int64_t row_stride_ = 0;

  InputForm form_ = InputForm::kFloats;
  PackedLayout quantized_layout_{};
  void (*quantize_row_)(const QuantizeTask&) = nullptr;
  std::vector<CacheLine> values_;  // of int8_t
  std::vector<float> scales_;
  std::vector<int32_t> sums_;
  std::vector<float> scaled_sums_;
};

}  // namespace inflight::cpu
