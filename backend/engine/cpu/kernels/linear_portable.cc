#include <cmath>
#include <cstring>

#include "engine/cpu/float_types.h"
#include "engine/cpu/kernels/linear_kernel.h"

// For every machine: weights are unpacked to float32, a segment or so at a time, and multiplied as such.
namespace inflight::cpu {
namespace {

constexpr int64_t kTileTokens = 4;
constexpr int64_t kTileColumns = 32;  // columns unpacked at a time, also the longest segment

using Lanes = float[kPanelRows];

// 128 bits, which every machine has; left to itself the compiler vectorizes the wrong loop.
using Vector = float __attribute__((vector_size(16)));
constexpr int kVectors = kPanelRows / 4;

template <class T>
T load(const std::byte* address) {
  T value;
  std::memcpy(&value, address, sizeof value);
  return value;
}

// Columns [k, k + columns) of a panel of floats, as [columns][16] float32.
void unpack_floats(WeightType type, const std::byte* panel, int64_t k, int64_t columns, float* out) {
  const int64_t first = k * kPanelRows;
  const int64_t count = columns * kPanelRows;
  if (type == WeightType::kFloat32) {
    std::memcpy(out, panel + first * 4, count * 4);
  } else if (type == WeightType::kBFloat16) {
    for (int64_t i = 0; i < count; ++i) out[i] = bfloat16_to_float(load<uint16_t>(panel + (first + i) * 2));
  } else {
    for (int64_t i = 0; i < count; ++i) out[i] = float16_to_float(load<uint16_t>(panel + (first + i) * 2));
  }
}

// Four columns of 16 rows, of which each 32-bit lane holds one in each byte from bit `shift` on.
void unpack_quad(const std::byte* quad, int shift, uint32_t mask, int offset, float* out) {
  uint32_t words[kPanelRows];
  std::memcpy(words, quad, sizeof words);
  for (int column = 0; column < 4; ++column) {
    for (int64_t lane = 0; lane < kPanelRows; ++lane) {
      const auto stored = static_cast<int32_t>(words[lane] >> (shift + 8 * column) & mask);
      out[column * kPanelRows + lane] = static_cast<float>(stored - offset);
    }
  }
}

// One segment's integers minus their offset, as [segment_columns][16] float32: products with int8 and
// their sums over a segment stay below 2^24, so float32 holds them exactly.
void unpack_segment(const PackedLayout& layout, const std::byte* weights, int64_t segment, float* out) {
  constexpr int64_t kLineBytes = 4 * kPanelRows;
  constexpr int64_t kQuad = 4 * kPanelRows;  // values
  const int64_t octets = layout.segment_columns / 8;
  if (layout.type == WeightType::kInt8) {
    const std::byte* lines = weights + segment * octets * 2 * kLineBytes;
    for (int64_t i = 0; i < octets * 2; ++i) unpack_quad(lines + i * kLineBytes, 0, 0xff, 128, out + i * kQuad);
    return;
  }
  const int offset = layout.has_minimum ? 0 : 8;
  const std::byte* lines = weights + segment * octets * kLineBytes;
  for (int64_t i = 0; i < octets; ++i) {
    unpack_quad(lines + i * kLineBytes, 0, 0x0f, offset, out + 2 * i * kQuad);
    unpack_quad(lines + i * kLineBytes, 4, 0x0f, offset, out + (2 * i + 1) * kQuad);
  }
}

void load_scales(const PackedLayout& layout, const std::byte* scales, int64_t group, Lanes& out) {
  for (int64_t lane = 0; lane < kPanelRows; ++lane) {
    const int64_t element = group * kPanelRows + lane;
    out[lane] =
        layout.half_scales ? float16_to_float(load<uint16_t>(scales + element * 2)) : load<float>(scales + element * 4);
  }
}

// sum[lane] += Σ weights[k][lane] · x[k]
template <class X>
void add_products(const float* weights, const X* x, int64_t columns, Lanes& sum) {
  Vector local[kVectors];
  std::memcpy(local, sum, sizeof local);
  for (int64_t k = 0; k < columns; ++k) {
    Vector w[kVectors];
    std::memcpy(w, weights + k * kPanelRows, sizeof w);
    const float value = static_cast<float>(x[k]);
    for (int v = 0; v < kVectors; ++v) local[v] += w[v] * value;
  }
  std::memcpy(sum, local, sizeof local);
}

void multiply_floats(const LinearTask& task, const std::byte* panel, int64_t token, int64_t tokens, Lanes* sums) {
  float weights[kTileColumns * kPanelRows];
  for (int64_t k = 0; k < task.layout->columns; k += kTileColumns) {
    const int64_t left = task.layout->columns - k;
    const int64_t columns = left < kTileColumns ? left : kTileColumns;
    unpack_floats(task.layout->type, panel, k, columns, weights);
    for (int64_t t = 0; t < tokens; ++t) {
      add_products(weights, task.x + (token + t) * task.x_stride + k, columns, sums[t]);
    }
  }
}

void multiply_integers(const LinearTask& task, const std::byte* panel, int64_t token, int64_t tokens, Lanes* sums) {
  const PackedLayout& layout = *task.layout;
  const int64_t segments = layout.groups * layout.segments_per_group;
  float weights[kTileColumns * kPanelRows];
  Lanes scales;
  Lanes minimums = {};
  for (int64_t segment = 0; segment < segments; ++segment) {
    const int64_t group = segment / layout.segments_per_group;
    load_scales(layout, panel, group, scales);
    if (layout.has_minimum) load_scales(layout, panel + layout.minimum_offset, group, minimums);
    unpack_segment(layout, panel + layout.weight_offset, segment, weights);
    for (int64_t t = 0; t < tokens; ++t) {
      Lanes dot = {};
      const int8_t* x = task.quantized_x + (token + t) * layout.packed_columns + segment * layout.segment_columns;
      add_products(weights, x, layout.segment_columns, dot);
      const float x_scale = task.segment_scales[(token + t) * segments + segment];
      const float x_sum = task.scaled_sums[(token + t) * segments + segment];
      for (int64_t lane = 0; lane < kPanelRows; ++lane) {
        sums[t][lane] += scales[lane] * x_scale * dot[lane] + minimums[lane] * x_sum;
      }
    }
  }
}

void store_lanes(const LinearTask& task, int64_t panel, int64_t token, const Lanes& sum) {
  const int64_t first_row = panel * kPanelRows;
  const int64_t left = task.layout->rows - first_row;
  float* y = task.y + token * task.y_stride + first_row;
  for (int64_t lane = 0; lane < (left < kPanelRows ? left : kPanelRows); ++lane) {
    float value = sum[lane];
    if (task.bias != nullptr) value += task.bias[first_row + lane];
    y[lane] = task.accumulate ? y[lane] + value : value;
  }
}

}  // namespace

void linear_portable(const LinearTask& task) {
  for (int64_t p = task.first_panel; p < task.last_panel; ++p) {
    const std::byte* panel = task.panels + p * task.layout->panel_bytes;
    for (int64_t token = task.first_token; token < task.last_token; token += kTileTokens) {
      const int64_t left = task.last_token - token;
      const int64_t tokens = left < kTileTokens ? left : kTileTokens;
      Lanes sums[kTileTokens] = {};
      if (task.layout->groups == 0) {
        multiply_floats(task, panel, token, tokens, sums);
      } else {
        multiply_integers(task, panel, token, tokens, sums);
      }
      for (int64_t t = 0; t < tokens; ++t) store_lanes(task, p, token + t, sums[t]);
    }
  }
}

void quantize_token_portable(const QuantizeTask& task) {
  const PackedLayout& layout = *task.layout;
  const int64_t group_columns = layout.columns / layout.groups;
  int8_t* values = task.values;
  int64_t segment = 0;
  for (int64_t group = 0; group < layout.groups; ++group) {
    const float* x = task.x + group * group_columns;
    int64_t left = group_columns;
    for (int64_t s = 0; s < layout.segments_per_group; ++s, ++segment) {
      const int64_t columns = left < layout.segment_columns ? left : layout.segment_columns;
      uint32_t absmax_bits = 0;  // as integers NaN > infinity > everything else
      for (int64_t k = 0; k < columns; ++k) {
        const uint32_t bits = std::bit_cast<uint32_t>(x[k]) & 0x7fffffff;
        absmax_bits = bits > absmax_bits ? bits : absmax_bits;
      }
      const float absmax = std::bit_cast<float>(absmax_bits);
      const bool usable = std::isfinite(absmax) && absmax >= kSmallestAbsmax;
      const float inverse = usable ? 127.0f / absmax : 0.0f;
      int32_t sum = 0;
      for (int64_t k = 0; k < layout.segment_columns; ++k) {
        const int32_t value = usable && k < columns ? static_cast<int32_t>(std::lrintf(x[k] * inverse)) : 0;
        values[k] = static_cast<int8_t>(value);
        sum += value;
      }
      const float scale = absmax < kSmallestAbsmax ? 0.0f : absmax / 127.0f;
      task.scales[segment] = scale;
      task.sums[segment] = sum;
      task.scaled_sums[segment] = scale * static_cast<float>(sum);
      x += columns;
      left -= columns;
      values += layout.segment_columns;
    }
  }
}

}  // namespace inflight::cpu
