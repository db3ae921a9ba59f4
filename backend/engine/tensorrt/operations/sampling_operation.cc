#include "engine/tensorrt/kernels/sampling.h"
#include "engine/tensorrt/operations/typed_operation.h"

namespace inflight::gpu {
namespace {

using kernels::Status;

LogitType logit_type(ElementType type) {
  switch (type) {
    case ElementType::kBFloat16: return LogitType::kBFloat16;
    case ElementType::kFloat16: return LogitType::kFloat16;
    default: return LogitType::kFloat32;
  }
}

class SamplingOperation : public TypedOperation<SamplingOperation, SamplingConstants> {
 public:
  static constexpr std::string_view kType = "sampling";
  using TypedOperation::TypedOperation;

  std::vector<ElementType> input_types() const override { return {c().type, ElementType::kInt32}; }
  OutputForm output() const override { return {0, 0, ElementType::kInt32}; }
  size_t workspace_bytes(std::span<const Shape>) const override { return 0; }
  Status load() override { return {}; }
  Status enqueue(std::span<const Input> inputs, void* output, void*, cudaStream_t stream) override {
    const cudaError_t error = sample_tokens(
        inputs[0].data, logit_type(c().type), static_cast<int32_t>(inputs[0].shape.rows()), c().vocab_size,
        static_cast<const SamplingRow*>(inputs[1].data), static_cast<int32_t*>(output), stream);
    return error == cudaSuccess ? Status() : Status::error(std::string("sampling: ") + cudaGetErrorString(error));
  }
};

}  // namespace

std::unique_ptr<Operation> make_sampling(const SamplingConstants& constants) {
  return std::make_unique<SamplingOperation>(constants);
}

std::unique_ptr<Operation> read_sampling(std::span<const std::byte> constants) {
  return SamplingOperation::read(constants);
}

}  // namespace inflight::gpu
