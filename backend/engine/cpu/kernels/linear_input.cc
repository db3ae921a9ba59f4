#include "engine/cpu/kernels/linear_input.h"

#include <algorithm>

#include "common/rounding.h"
#include "engine/cpu/kernels/linear_kernel.h"

namespace inflight::cpu {
namespace {

void (*quantize_token_kernel(Isa isa))(const QuantizeTask&) {
#if defined(__x86_64__)
  if (isa >= Isa::kAvx512) return quantize_token_avx512;
  if (isa == Isa::kAvx2) return quantize_token_avx2;
#endif
  (void)isa;
  return quantize_token_portable;
}

template <class T>
void grow(std::vector<T>& buffer, int64_t size) {
  if (static_cast<int64_t>(buffer.size()) < size) buffer.resize(size);
}

}  // namespace

// AMX takes columns that fill whole tiles; where weights are integers, each of one group.
InputForm input_form(const PackedLayout& layout, Precision precision, Isa isa) {
  const bool is_integer = layout.groups != 0;
  const bool has_whole_segments = layout.segment_columns == kAmxTileColumns && layout.packed_columns == layout.columns;
  const bool fits = is_integer ? has_whole_segments : layout.type == WeightType::kBFloat16;
  const bool fills_tiles = fits && layout.columns % kAmxTileColumns == 0;
  if (isa == Isa::kAmx && precision == Precision::kRounded && fills_tiles) return InputForm::kTiles;
  return is_integer ? InputForm::kSegments : InputForm::kFloats;
}

LinearInput::LinearInput(int64_t max_tokens, int64_t max_columns)
    : values_(round_up(max_tokens, kAmxTileTokens) * 2 * (max_columns + 31) / 64 + 1),
      scales_(max_tokens * (max_columns / 16 + 1)),
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

std::byte* LinearInput::begin_tiles(const PackedLayout& layout, Isa isa) {
  begin_quantize(layout, Precision::kRounded, isa);
  return values();
}

LinearTask LinearInput::task(const PackedMatrix& weight) const {
  LinearTask task{};
  task.layout = &weight.layout();
  task.panels = weight.panels();
  task.last_panel = divide_up(weight.rows(), kPanelRows);
  task.last_token = tokens_;
  task.x = rows_;
  task.x_stride = row_stride_;
  task.x_tiles = values_.data()->bytes;
  task.quantized_x = reinterpret_cast<const int8_t*>(task.x_tiles);
  task.segment_scales = scales_.data();
  task.segment_sums = sums_.data();
  task.scaled_sums = scaled_sums_.data();
  return task;
}

void LinearInput::begin_quantize(const PackedLayout& layout, Precision precision, Isa isa) {
  form_ = input_form(layout, precision, isa);
  if (form_ == InputForm::kFloats) return;
  quantized_layout_ = layout;
  if (form_ == InputForm::kTiles) return grow(values_, round_up(tokens_, kAmxTileTokens) * 2 * columns_ / 64);
  quantize_token_ = quantize_token_kernel(isa);
  const int64_t segments = layout.groups * layout.segments_per_group;
  grow(values_, divide_up(tokens_ * layout.packed_columns, 64));
  grow(scales_, tokens_ * segments);
  grow(sums_, tokens_ * segments);
  grow(scaled_sums_, tokens_ * segments);
}

void LinearInput::quantize_token(int64_t token) {
  const float* x = rows_ + token * row_stride_;
  if (form_ == InputForm::kTiles) {
#if defined(__x86_64__)
    const int64_t tiles = token / kAmxTileTokens * kAmxTileTokens * 2 * columns_;
    write_token_to_tiles_amx(x, columns_, values() + tiles + token % kAmxTileTokens * 2 * kAmxTileColumns);
#endif
    return;
  }
  const int64_t segments = quantized_layout_.groups * quantized_layout_.segments_per_group;
  quantize_token_({.layout = &quantized_layout_,
                   .x = x,
                   .values = reinterpret_cast<int8_t*>(values()) + token * quantized_layout_.packed_columns,
                   .scales = scales_.data() + token * segments,
                   .sums = sums_.data() + token * segments,
                   .scaled_sums = scaled_sums_.data() + token * segments});
}

}  // namespace inflight::cpu
