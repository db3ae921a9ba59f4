#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "engine/cpu/packed_layout.h"

namespace inflight::cpu {

// A matrix in the checkpoint's layout (docs/architecture.md): `data` is [rows, columns] row by row,
// int8 signed, int4 two columns a byte, the even one in the low nibble.
struct MatrixSource {
  WeightType type;
  int64_t rows;
  int64_t columns;
  int64_t groups = 0;              // of columns that share a scale; divides columns; 0 for float types
  const void* data;
  const float* scale = nullptr;    // [rows, groups]
  const float* minimum = nullptr;  // [rows, groups], int4 only: scale * q + minimum; else scale * (q - 8)
};

// The blob that an engine file holds for a matrix: a 64-byte header, then the panels of PackedLayout.
// It is the same for every instruction set, and a multiple of 64 bytes long.
// Throws kInvalidArgument for a source that contradicts itself.
std::vector<std::byte> pack_matrix(const MatrixSource& source);

// A view of such a blob, which must outlive it. The blob may lie at any address; kernels are fastest
// when that is a multiple of 64.
class PackedMatrix {
 public:
  PackedMatrix() = default;
  // Throws kInvalidArgument, naming the tensor, for a blob that pack_matrix of this version did not make.
  PackedMatrix(std::span<const std::byte> blob, std::string_view name);

  const PackedLayout& layout() const { return layout_; }
  int64_t rows() const { return layout_.rows; }
  int64_t columns() const { return layout_.columns; }
  const std::byte* panels() const { return panels_; }

  // Writes the columns() values of row r, which must be in [0, rows()), to `out`: embedding lookup.
  void row(int64_t r, float* out) const;

 private:
  PackedLayout layout_{};
  const std::byte* panels_ = nullptr;
};

}  // namespace inflight::cpu
