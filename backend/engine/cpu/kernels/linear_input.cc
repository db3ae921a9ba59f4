#include "engine/cpu/kernels/linear_input.h"

#include <algorithm>

#include "common/rounding.h"
#include "engine/cpu/kernels/linear_kernel.h"

namespace inflight::cpu {
namespace {

void (*quantize_row_kernel(Isa isa))(const QuantizeTask&) {
#if defined(__x86_64__)
  if (isa >= Isa::kAvx512) return quantize_row_avx512;
  if (isa == Isa::kAvx2) return quantize_row_avx2;
#endif
  (void)isa;
  return quantize_row_portable;
}

template <class T>
void grow(std::vector<T>& buffer, int64_t size) {
  if (static_cast<int64_t>(buffer.size()) < size) buffer.resize(size);
}

}  // namespace

LinearInput::LinearInput(int64_t max_tokens, int64_t max_columns)
    : values_(max_tokens * (max_columns + 31)),
      scales_(max_tokens * (max_columns / 16 + 1)),
      sums_(max_tokens * (max_columns / 16 + 1)),
      scaled_sums_(max_tokens * (max_columns / 16 + 1)) {}

void LinearInput::set(const float* rows, int64_t tokens, int64_t columns, int64_t row_stride) {
  rows_ = rows;
  tokens_ = tokens;
  columns_ = columns;
  row_stride_ = row_stride;
  is_quantized_ = false;
}

// Matrices whose groups are filled by their segments cut a row into the same segments, whatever their
// groups' size is.
bool LinearInput::is_quantized_for(const PackedLayout& layout) const {
  if (!is_quantized_ || layout.segment_columns != quantized_layout_.segment_columns) return false;
  if (layout.packed_columns != quantized_layout_.packed_columns) return false;
  return layout.packed_columns == layout.columns || layout.groups == quantized_layout_.groups;
}

void LinearInput::quantize(const PackedLayout& layout, ThreadPool& pool, Isa isa) {
  if (layout.groups == 0 || is_quantized_for(layout)) return;
  produce(layout, pool, isa, [](int64_t) {});
}

void LinearInput::begin_quantize(const PackedLayout& layout, Isa isa) {
  if (layout.groups == 0) return;
  const int64_t segments = layout.groups * layout.segments_per_group;
  grow(values_, tokens_ * layout.packed_columns);
  grow(scales_, tokens_ * segments);
  grow(sums_, tokens_ * segments);
  grow(scaled_sums_, tokens_ * segments);
  is_quantized_ = true;
  quantized_layout_ = layout;
  quantize_row_ = quantize_row_kernel(isa);
}

void LinearInput::quantize_row(int64_t row) {
  const int64_t segments = quantized_layout_.groups * quantized_layout_.segments_per_group;
  quantize_row_({.layout = &quantized_layout_,
                 .x = rows_ + row * row_stride_,
                 .values = values_.data() + row * quantized_layout_.packed_columns,
                 .scales = scales_.data() + row * segments,
                 .sums = sums_.data() + row * segments,
                 .scaled_sums = scaled_sums_.data() + row * segments});
}

}  // namespace inflight::cpu
