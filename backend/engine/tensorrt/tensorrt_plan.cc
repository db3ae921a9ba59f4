#include "engine/tensorrt/tensorrt_plan.h"

#include <algorithm>

#include "common/error.h"
#include "common/logging.h"

namespace inflight::gpu {
namespace {

using namespace nvinfer1;

// Keeps the last error, for the exception that follows it.
class Logger : public ILogger {
 public:
  void log(Severity severity, const char* text) noexcept override {
    if (severity <= Severity::kERROR) last_error_ = text;
  }
  [[noreturn]] void fail(const std::string& what) const {
    const std::string& of_plugin = last_plugin_error();
    throw_error(ErrorCode::kInternal, what, of_plugin.empty() ? "" : ": " + of_plugin,
                last_error_.empty() ? "" : " (TensorRT: " + last_error_ + ")");
  }

 private:
  std::string last_error_;
};

Logger& logger() {
  static Logger instance;
  return instance;
}

Dims to_dims(const std::vector<OperationGraph::Size>& sizes, int64_t (*take)(const OperationGraph::Size&)) {
  Dims dims{};
  dims.nbDims = static_cast<int32_t>(sizes.size());
  for (size_t i = 0; i < sizes.size(); ++i) dims.d[i] = static_cast<DimensionSize>(take(sizes[i]));
  return dims;
}

class NetworkGraph : public OperationGraph {
 public:
  NetworkGraph(INetworkDefinition& network, IOptimizationProfile& profile) : network_(network), profile_(profile) {}

  Value input(const std::string& name, ElementType type, const std::vector<Size>& sizes) override {
    const Dims dims = to_dims(sizes, [](const Size& size) { return size.is_fixed() ? size.range.most : -1; });
    ITensor* const tensor = network_.addInput(name.c_str(), to_tensorrt(type), dims);
    if (tensor == nullptr) logger().fail("the input " + name + " is not taken");
    if (!std::ranges::all_of(sizes, &Size::is_fixed)) {
      profile_.setDimensions(name.c_str(), OptProfileSelector::kMIN,
                             to_dims(sizes, [](const Size& size) { return size.range.least; }));
      profile_.setDimensions(name.c_str(), OptProfileSelector::kOPT,
                             to_dims(sizes, [](const Size& size) { return size.range.usual; }));
      profile_.setDimensions(name.c_str(), OptProfileSelector::kMAX,
                             to_dims(sizes, [](const Size& size) { return size.range.most; }));
    }
    return keep(tensor);
  }
  Value add(const std::string& name, const Operation& operation, std::initializer_list<Value> inputs) override {
    std::vector<ITensor*> tensors;
    for (const Value value : inputs) tensors.push_back(tensors_[value]);
    return keep(add_operation(network_, operation, tensors, name.c_str()));
  }
  void output(Value value, const std::string& name, ElementType type) override {
    tensors_[value]->setName(name.c_str());
    network_.markOutput(*tensors_[value]);
    set_output_type(*tensors_[value], type);
  }

 private:
  Value keep(ITensor* tensor) {
    tensors_.push_back(tensor);
    return static_cast<Value>(tensors_.size()) - 1;
  }

  INetworkDefinition& network_;
  IOptimizationProfile& profile_;
  std::vector<ITensor*> tensors_;
};

}  // namespace

std::vector<char> build_plan(const std::function<void(OperationGraph&)>& describe) {
  register_plugins();
  const std::unique_ptr<IBuilder> builder(createInferBuilder(logger()));
  if (builder == nullptr) logger().fail("TensorRT makes no builder");
  const auto network = create_network(*builder);
  const auto config = create_builder_config(*builder);
  if (network == nullptr || config == nullptr) logger().fail("TensorRT makes no network");
  IOptimizationProfile* const profile = builder->createOptimizationProfile();
  NetworkGraph graph(*network, *profile);
  describe(graph);
  config->addOptimizationProfile(profile);
  const std::unique_ptr<IHostMemory> plan(builder->buildSerializedNetwork(*network, *config));
  if (plan == nullptr) logger().fail("TensorRT builds no plan");
  const auto* const first = static_cast<const char*>(plan->data());
  return {first, first + plan->size()};
}

struct TensorRtPlan::Parts {
  std::unique_ptr<IRuntime> runtime;
  std::unique_ptr<ICudaEngine> engine;
  std::unique_ptr<IExecutionContext> context;
};

TensorRtPlan::TensorRtPlan(std::span<const char> plan) : parts_(std::make_unique<Parts>()) {
  register_plugins();
  parts_->runtime.reset(createInferRuntime(logger()));
  if (parts_->runtime == nullptr) logger().fail("TensorRT makes no runtime");
  parts_->engine.reset(parts_->runtime->deserializeCudaEngine(plan.data(), plan.size()));
  if (parts_->engine == nullptr) logger().fail("the plan cannot be loaded");
  parts_->context.reset(parts_->engine->createExecutionContext());
  if (parts_->context == nullptr) logger().fail("the plan's context cannot be made");
}

TensorRtPlan::~TensorRtPlan() = default;

void TensorRtPlan::bind(const std::string& name, void* data) {
  if (!parts_->context->setTensorAddress(name.c_str(), data)) logger().fail("the plan has no tensor " + name);
}

void TensorRtPlan::set_sizes(const std::string& name, std::initializer_list<int64_t> sizes) {
  Dims dims{};
  dims.nbDims = static_cast<int32_t>(sizes.size());
  std::ranges::transform(sizes, dims.d, [](int64_t size) { return static_cast<DimensionSize>(size); });
  if (!parts_->context->setInputShape(name.c_str(), dims))
    logger().fail("the plan does not take these sizes of " + name);
}

void TensorRtPlan::enqueue(cudaStream_t stream) {
  if (!parts_->context->enqueueV3(stream)) logger().fail("a step cannot be run");
}

}  // namespace inflight::gpu
