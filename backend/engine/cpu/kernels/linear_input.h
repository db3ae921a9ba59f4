#pragma once

#include <cstdint>
#include <vector>

#include "common/thread_pool.h"
#include "engine/cpu/cpu_features.h"
#include "engine/cpu/for_each_row.h"
#include "engine/cpu/kernels/linear_kernel.h"
#include "engine/cpu/packed_layout.h"

namespace inflight::cpu {

// The input of one or more linear layers: float rows and, for integer weights, their int8 form, made
// once for all matrices that are cut into the same segments.
class LinearInput {
 public:
  // Allocates for this many tokens; only a matrix with unusual groups makes it grow later.
  LinearInput(int64_t max_tokens, int64_t max_columns);

  // rows: [tokens, columns], row_stride floats apart; they must stay as they are while the input is in
  // use. Call it again whenever they change.
  void set(const float* rows, int64_t tokens, int64_t columns, int64_t row_stride);

  // Makes the int8 form for matrices of `layout`, unless it is there or they have none.
  void quantize(const PackedLayout& layout, ThreadPool& pool, Isa isa);

  // Calls write(row), which writes that row of what set() was given, for every row and makes its int8 form, if matrices
  // of `layout` have one, while it is at hand.
  template <class Write>
  void produce(const PackedLayout& layout, ThreadPool& pool, Isa isa, const Write& write) {
    begin_quantize(layout, isa);
    const bool quantizes = layout.groups != 0;
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
  const int8_t* quantized() const { return values_.data(); }
  const float* segment_scales() const { return scales_.data(); }
  const int32_t* segment_sums() const { return sums_.data(); }
  const float* scaled_sums() const { return scaled_sums_.data(); }

 private:
  bool is_quantized_for(const PackedLayout& layout) const;
  void begin_quantize(const PackedLayout& layout, Isa isa);
  void quantize_row(int64_t row);

  const float* rows_ = nullptr;
  int64_t tokens_ = 0;
  int64_t columns_ = 0;
  int64_t row_stride_ = 0;

  bool is_quantized_ = false;
  PackedLayout quantized_layout_{};
  void (*quantize_row_)(const QuantizeTask&) = nullptr;
  std::vector<int8_t> values_;
  std::vector<float> scales_;
  std::vector<int32_t> sums_;
  std::vector<float> scaled_sums_;
};

}  // namespace inflight::cpu
