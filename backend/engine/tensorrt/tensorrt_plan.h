#pragma once

// Graphs of operations → TensorRT plans, and plans at work.

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/tensorrt/operation_graph.h"
#include "engine/tensorrt/plugin.h"

namespace inflight::gpu {

// Builds a plan on the current GPU of what `describe` adds. Throws Error with what TensorRT said.
std::vector<char> build_plan(const std::function<void(OperationGraph&)>& describe);

// A plan with a context of its own. Everything that can be wrong throws Error.
class TensorRtPlan {
 public:
  explicit TensorRtPlan(std::span<const char> plan);
  ~TensorRtPlan();

  // Where an input or an output stands on the GPU. Holds until it is bound elsewhere.
  void bind(const std::string& name, void* data);
  // The sizes of an input of this step, where the plan leaves them open.
  void set_sizes(const std::string& name, std::initializer_list<int64_t> sizes);

  // Neither waits nor allocates, once the same sizes have been run before; can be captured into a CUDA graph.
  void enqueue(cudaStream_t stream);

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace inflight::gpu
