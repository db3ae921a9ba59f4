#pragma once

// A graph of operations that runs without TensorRT: what a plan must equal, bit for bit.

#include <map>

#include "device.cuh"
#include "engine/tensorrt/operation_graph.h"

namespace inflight::gpu_test {

class DirectGraph : public gpu::OperationGraph {
 public:
  Value input(const std::string& name, gpu::ElementType, const std::vector<Size>&) override {
    inputs_[name] = static_cast<Value>(values_.size());
    values_.emplace_back();
    return inputs_[name];
  }
  Value add(const std::string&, const gpu::Operation& operation, std::initializer_list<Value> inputs) override {
    nodes_.push_back({operation.copy(), inputs, static_cast<Value>(values_.size())});
    CHECK_LAUNCH(nodes_.back().operation->load());
    values_.emplace_back();
    return nodes_.back().output;
  }
  void output(Value value, const std::string& name, gpu::ElementType) override { outputs_[name] = value; }

  void bind(const std::string& name, const void* data, std::initializer_list<int64_t> sizes) {
    gpu::Input& input = values_.at(inputs_.at(name));
    input.data = data;
    input.shape.rank = static_cast<int32_t>(sizes.size());
    std::ranges::copy(sizes, input.shape.sizes);
  }
  void bind_output(const std::string& name, void* data) { bound_outputs_[outputs_.at(name)] = data; }

  // Gives every tensor its place. After bind(), before enqueue().
  void prepare() {
    std::map<Value, size_t> last_use;
    for (size_t i = 0; i < nodes_.size(); ++i) {
      for (const Value value : nodes_[i].inputs) last_use[value] = i;
    }
    std::multimap<size_t, char*> free;
    size_t workspace = 1;
    for (size_t i = 0; i < nodes_.size(); ++i) {
      Node& node = nodes_[i];
      std::vector<gpu::Shape> shapes;
      for (const Value value : node.inputs) shapes.push_back(values_[value].shape);
      workspace = std::max(workspace, node.operation->workspace_bytes(shapes));
      const gpu::OutputForm form = node.operation->output();
      gpu::Input& output = values_[node.output];
      output.shape = {form.columns == 0 ? 1 : 2, {shapes[form.rows_of_input].rows(), form.columns}};
      const size_t bytes = 4 * output.shape.rows() * std::max(form.columns, 1);
      const auto bound = bound_outputs_.find(node.output);
      if (bound != bound_outputs_.end()) {
        output.data = bound->second;
      } else if (const auto found = free.find(bytes); found != free.end()) {
        output.data = found->second;
        free.erase(found);
      } else {
        buffers_.push_back(Array<char>(bytes));
        output.data = buffers_.back().get();
      }
      for (const Value value : node.inputs) {
        const bool is_ours = std::ranges::any_of(nodes_, [&](const Node& n) { return n.output == value; });
        if (is_ours && last_use[value] == i && !bound_outputs_.contains(value)) {
          const gpu::Input& done = values_[value];
          const size_t size = 4 * done.shape.rows() * done.shape.columns();
          free.emplace(size, static_cast<char*>(const_cast<void*>(done.data)));
          last_use[value] = nodes_.size();
        }
      }
    }
    workspace_ = Array<char>(workspace);
  }

  void enqueue(cudaStream_t stream) {
    for (Node& node : nodes_) {
      std::vector<gpu::Input> inputs;
      for (const Value value : node.inputs) inputs.push_back(values_[value]);
      CHECK_LAUNCH(
          node.operation->enqueue(inputs, const_cast<void*>(values_[node.output].data), workspace_.get(), stream));
    }
  }

 private:
  struct Node {
    std::unique_ptr<gpu::Operation> operation;
    std::vector<Value> inputs;
    Value output;
  };
  std::vector<gpu::Input> values_;
  std::vector<Node> nodes_;
  std::map<std::string, Value> inputs_, outputs_;
  std::map<Value, void*> bound_outputs_;
  std::vector<Array<char>> buffers_;
  Array<char> workspace_{1};
};

}  // namespace inflight::gpu_test
