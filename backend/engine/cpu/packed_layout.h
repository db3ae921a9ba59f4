#pragma once

#include <cstddef>
#include <cstdint>

// Plain data that kernels of every instruction set share. Nothing here may become a function: their
// files are compiled with other flags than the rest (see kernels/CMakeLists.txt).
namespace inflight::cpu {

enum class WeightType : uint32_t { kFloat32, kBFloat16, kFloat16, kInt8, kInt4 };

inline constexpr int64_t kPanelRows = 16;  // rows that are interleaved, the lanes of one 512-bit register

// A matrix [rows, columns] as packed: panels of kPanelRows rows, the last one filled up with zeros,
// panel_bytes apart. A panel of a float type is [columns][16] values. One of an integer type is
//
//   scales    [groups][16]          float32, or float16 where that is exact
//   minimums  [groups][16]          the same, if has_minimum
//   weights   [packed_columns / 4][16][4] bytes                     int8, stored as q + 128
//             [packed_columns / 8][16][4] bytes                     int4: columns 0-3 of 8 in the low
//                                                                   nibbles, 4-7 in the high nibbles
//
// so that one 32-bit lane holds four columns of one row, as 8-bit dot-product instructions want it.
// Each of the `groups` is cut into segments of segment_columns columns (at most 32, a multiple of 8):
// what shares one scale of the activations, which are quantized too. A group whose columns do not fill
// its segments is followed by zeros, in the activations as in the weights.
struct PackedLayout {
  WeightType type;
  bool has_minimum;
  bool half_scales;
  int64_t rows;
  int64_t columns;
  int64_t groups;              // 0 for float types, like all that follow except weight_offset, panel_bytes
  int64_t segments_per_group;
  int64_t segment_columns;
  int64_t packed_columns;      // groups * segments_per_group * segment_columns
  int64_t minimum_offset;      // bytes from a panel's start
  int64_t weight_offset;
  int64_t panel_bytes;         // a multiple of 64
};

}  // namespace inflight::cpu
