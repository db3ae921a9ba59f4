#pragma once

// What a plugin does, free of TensorRT: an operation on the GPU with its constants, which a plan holds as bytes. One
// adapter (tensorrt/plugin.h) puts every operation behind TensorRT's plugin interface.

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernel_launch.h"

namespace inflight::gpu {

enum class ElementType : int32_t { kBFloat16, kFloat16, kFloat8E4M3, kFloat32, kInt32, kInt8 };

// Of any tensor that an operation reads or writes: densely packed, the last size first in memory.
struct Shape {
  int32_t rank = 0;
  int64_t sizes[4] = {};

  int64_t rows() const { return rank == 0 ? 1 : sizes[0]; }
  int64_t columns() const { return rank < 2 ? 1 : sizes[1]; }
};

struct Input {
  const void* data;
  Shape shape;
};

// An output has the rows of one input, and columns of its own; none: it is a vector.
struct OutputForm {
  int32_t rows_of_input;
  int32_t columns;
  ElementType type;
};

class Operation {
 public:
  virtual ~Operation() = default;

  // Names the class in a plan; see operations.h.
  virtual std::string_view type() const = 0;
  // What read_operation() makes an equal operation of.
  virtual std::vector<std::byte> constants() const = 0;
  // Another one, not loaded.
  virtual std::unique_ptr<Operation> copy() const = 0;

  virtual std::vector<ElementType> input_types() const = 0;
  virtual OutputForm output() const = 0;

  // Room on the GPU that enqueue() needs for inputs of these shapes, or smaller ones. Nothing in it is kept.
  virtual size_t workspace_bytes(std::span<const Shape> inputs) const = 0;
  // Before the first enqueue(), on the GPU that runs it. Loads what a stream under capture cannot.
  virtual kernels::Status load() = 0;
  // Neither waits nor allocates.
  virtual kernels::Status enqueue(std::span<const Input> inputs, void* output, void* workspace,
                                  cudaStream_t stream) = 0;
};

// Room for a vector of a workspace, whose parts each start at a multiple of 256 bytes.
constexpr size_t workspace_part(size_t bytes) { return (bytes + 255) / 256 * 256; }

}  // namespace inflight::gpu
