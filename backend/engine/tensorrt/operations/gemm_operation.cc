#include "engine/tensorrt/gemm/gemm.h"
#include "engine/tensorrt/operations/typed_operation.h"

namespace inflight::gpu {
namespace {

using kernels::Status;

ElementType element_type(GemmType type) {
  switch (type) {
    case GemmType::kBFloat16: return ElementType::kBFloat16;
    case GemmType::kFloat16: return ElementType::kFloat16;
    case GemmType::kFloat8E4M3: return ElementType::kFloat8E4M3;
  }
  return ElementType::kBFloat16;
}

class GemmOperation : public Operation {
 public:
  GemmOperation(const GemmShape& shape, GemmTactics tactics) : shape_(shape), tactics_(std::move(tactics)) {}
  ~GemmOperation() override {
    if (counters_ != nullptr) cudaFree(counters_);
  }
  GemmOperation(const GemmOperation&) = delete;
  GemmOperation& operator=(const GemmOperation&) = delete;

  std::string_view type() const override { return "gemm"; }
  std::vector<std::byte> constants() const override {
    ConstantWriter writer;
    writer.add(shape_);
    writer.add_all(std::span<const GemmTactic>(tactics_));
    return writer.take();
  }
  std::unique_ptr<Operation> copy() const override { return std::make_unique<GemmOperation>(shape_, tactics_); }

  std::vector<ElementType> input_types() const override {
    std::vector<ElementType> types(2, element_type(shape_.input));
    if (adds_residual()) types.push_back(element_type(shape_.output));
    if (is_scaled()) types.insert(types.end(), 2, ElementType::kFloat32);
    return types;
  }
  OutputForm output() const override { return {0, shape_.output_columns(), element_type(shape_.output)}; }
  size_t workspace_bytes(std::span<const Shape> inputs) const override {
    return gpu::workspace_bytes(shape_, static_cast<int32_t>(inputs[0].rows()));
  }
  Status load() override {
    if (counters_ != nullptr) return {};
    const size_t bytes = counter_bytes(shape_);
    cudaError_t error = cudaMalloc(&counters_, bytes);
    if (error == cudaSuccess) error = cudaMemset(counters_, 0, bytes);
    if (error != cudaSuccess) return Status::error(std::string("counters of a product: ") + cudaGetErrorString(error));
    return load_gemm(shape_);
  }
  Status enqueue(std::span<const Input> inputs, void* output, void* workspace, cudaStream_t stream) override {
    const auto rows = static_cast<int32_t>(inputs[0].shape.rows());
    const size_t scales = adds_residual() ? 3 : 2;
    return gpu::enqueue(shape_, find_tactic(tactics_, rows),
                        {.output = output,
                         .input = inputs[0].data,
                         .weight = inputs[1].data,
                         .residual = adds_residual() ? inputs[2].data : nullptr,
                         .input_scale = is_scaled() ? static_cast<const float*>(inputs[scales].data) : nullptr,
                         .weight_scale = is_scaled() ? static_cast<const float*>(inputs[scales + 1].data) : nullptr,
                         .workspace = workspace,
                         .counters = counters_,
                         .rows = rows},
                        stream);
  }

 private:
  bool adds_residual() const { return shape_.epilogue == GemmEpilogue::kAddResidual; }
  bool is_scaled() const { return shape_.input == GemmType::kFloat8E4M3; }

  GemmShape shape_;
  GemmTactics tactics_;
  void* counters_ = nullptr;
};

}  // namespace

std::unique_ptr<Operation> make_gemm(const GemmShape& shape, GemmTactics tactics) {
  return std::make_unique<GemmOperation>(shape, std::move(tactics));
}

std::unique_ptr<Operation> read_gemm(std::span<const std::byte> constants) {
  ConstantReader reader(constants);
  const auto shape = reader.next<GemmShape>();
  auto tactics = reader.next_all<GemmTactic>();
  reader.finish();
  return make_gemm(shape, std::move(tactics));
}

}  // namespace inflight::gpu
