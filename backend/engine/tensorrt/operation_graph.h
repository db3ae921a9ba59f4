#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "engine/tensorrt/operations/operation.h"

namespace inflight::gpu {

// Where a model's operations go: into a TensorRT network, or, in tests, into a list that runs without TensorRT.
class OperationGraph {
 public:
  using Value = int32_t;  // names a tensor of this graph

  // A size that differs between steps, within these bounds.
  struct Range {
    int64_t least, usual, most;
  };
  struct Size {
    Size(int64_t fixed) : range{fixed, fixed, fixed} {}
    Size(const Range& of_range) : range(of_range) {}
    bool is_fixed() const { return range.least == range.most; }
    Range range;
  };

  virtual ~OperationGraph() = default;
  virtual Value input(const std::string& name, ElementType type, const std::vector<Size>& sizes) = 0;
  virtual Value add(const std::string& name, const Operation& operation, std::initializer_list<Value> inputs) = 0;
  virtual void output(Value value, const std::string& name, ElementType type) = 0;
};

}  // namespace inflight::gpu
