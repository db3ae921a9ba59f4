#include "engine/cpu/kernels/linear_input.h"

#include <algorithm>

#include "common/rounding.h"
#include "engine/cpu/kernels/linear_kernel.h"

namespace inflight::cpu {
namespace {

constexpr int64_t kMaxTileColumns = 1 << 15;  // of a row: sums must fit 32 bits

void (*quantize_row_kernel(InputForm form, Isa isa))(const QuantizeTask&) {
#if defined(__x86_64__)
  if (form == InputForm::kTiles) return quantize_row_amx;
  if (isa >= Isa::kAvx512) return quantize_row_avx512;
  if (isa == Isa::kAvx2) return quantize_row_avx2;
#endif
  (void)form, (void)isa;
  return quantize_row_portable;
}

template <class T>
void grow(std::vector<T>& buffer, int64_t size) {
  if (static_cast<int64_t>(buffer.size()) < size) buffer.resize(size);
}

}  // namespace

// AMX takes int8 and int4 whose rows fill whole tiles. (That of the last block's rows: blocks are filled up.)
InputForm input_form(const PackedLayout& layout, Precision precision, Isa isa) {
  if (layout.groups == 0) return InputForm::kFloats;
  const bool has_row_scales = layout.type == WeightType::kInt4 || layout.groups == 1;
  const bool fills_tiles = layout.segment_columns == 32 && layout.packed_columns == layout.columns &&
                           layout.columns % kAmxTileColumns == 0 && layout.columns <= kMaxTileColumns;
  const bool takes_tiles = isa == Isa::kAmx && precision == Precision::kRounded && has_row_scales && fills_tiles;
  return takes_tiles ? InputForm::kTiles : InputForm::kSegments;
}

LinearInput::LinearInput(int64_t max_tokens, int64_t max_columns)
    : values_(round_up(max_tokens, kAmxTileTokens) * 2 * (max_columns + 31) / 64 + 1),
      scales_(round_up(max_tokens, kAmxTileTokens) * (max_columns / 16 + 1)),
      sums_(scales_.size()),
      scaled_sums_(scales_.size()) {}

void LinearInput::set(const float* rows, int64_t tokens, int64_t columns, int64_t row_stride) {
  rows_ = rows;
  tokens_ = tokens;
  columns_ = columns;
  row_stride_ = row_stride;
  form_ = InputForm::kFloats;
}

// Matrices whose groups are filled by their segments cut a row into the same segments, whatever their
// groups' size is.
bool LinearInput::is_quantized_for(const PackedLayout& layout, InputForm form) const {
  if (form_ != form) return false;
  if (form == InputForm::kTiles) return true;
  if (layout.segment_columns != quantized_layout_.segment_columns) return false;
  if (layout.packed_columns != quantized_layout_.packed_columns) return false;
  return layout.packed_columns == layout.columns || layout.groups == quantized_layout_.groups;
}

void LinearInput::quantize(const PackedLayout& layout, Precision precision, ThreadPool& pool, Isa isa) {
  const InputForm form = input_form(layout, precision, isa);
  if (form == InputForm::kFloats || is_quantized_for(layout, form)) return;
  produce(layout, precision, pool, isa, [](int64_t) {});
}

void LinearInput::begin_quantize(const PackedLayout& layout, Precision precision, Isa isa) {
  form_ = input_form(layout, precision, isa);
  if (form_ == InputForm::kFloats) return;
  quantized_layout_ = layout;
  quantize_row_ = quantize_row_kernel(form_, isa);
  if (form_ == InputForm::kTiles) {
    grow(values_, round_up(tokens_, kAmxTileTokens) * 2 * columns_ / 64);
    grow(scales_, tokens_);
    grow(sums_, 2 * tokens_);
    return;
  }
  const int64_t segments = layout.groups * layout.segments_per_group;
  grow(values_, divide_up(tokens_ * layout.packed_columns, 64));
  grow(scales_, tokens_ * segments);
  grow(sums_, tokens_ * segments);
  grow(scaled_sums_, tokens_ * segments);
}

void LinearInput::quantize_row(int64_t row) {
  if (form_ == InputForm::kTiles) {
    const int64_t tile = row / kAmxTileTokens * kAmxTileTokens * 2 * columns_;
    quantize_row_({.layout = &quantized_layout_,
                   .x = rows_ + row * row_stride_,
                   .values = values() + tile + row % kAmxTileTokens * kAmxTileColumns,
                   .scales = scales_.data() + row,
                   .sums = sums_.data() + 2 * row,
                   .scaled_sums = nullptr});
    return;
  }
  const int64_t segments = quantized_layout_.groups * quantized_layout_.segments_per_group;
  quantize_row_({.layout = &quantized_layout_,
                 .x = rows_ + row * row_stride_,
                 .values = values() + row * quantized_layout_.packed_columns,
                 .scales = scales_.data() + row * segments,
                 .sums = sums_.data() + row * segments,
                 .scaled_sums = scaled_sums_.data() + row * segments});
}

}  // namespace inflight::cpu
