// Norm, activation and embedding.

#include "embedding.h"
#include "engine/tensorrt/operations/typed_operation.h"
#include "gated_activation.h"
#include "rms_norm.h"

namespace inflight::gpu {
namespace {

using kernels::Status;

int32_t rows_of(const Input& input) { return static_cast<int32_t>(input.shape.rows()); }

class RmsNormOperation : public TypedOperation<RmsNormOperation, RmsNormConstants> {
 public:
  static constexpr std::string_view kType = "rms_norm";
  using TypedOperation::TypedOperation;

  std::vector<ElementType> input_types() const override { return {c().type, ElementType::kFloat32}; }
  OutputForm output() const override { return {0, c().size, c().type}; }
  size_t workspace_bytes(std::span<const Shape>) const override { return 0; }
  Status load() override { return kernels::load(arguments()); }
  Status enqueue(std::span<const Input> inputs, void* output, void*, cudaStream_t stream) override {
    kernels::RmsNorm norm = arguments();
    norm.output = output;
    norm.input = inputs[0].data;
    norm.weight = static_cast<const float*>(inputs[1].data);
    norm.rows = rows_of(inputs[0]);
    return launch(norm, stream);
  }

 private:
  kernels::RmsNorm arguments() const {
    kernels::RmsNorm norm{};
    norm.dtype = data_type(c().type);
    norm.size = c().size;
    norm.epsilon = c().epsilon;
    norm.programmatic_launch = true;
    return norm;
  }
};

class ActivationOperation : public TypedOperation<ActivationOperation, ActivationConstants> {
 public:
  static constexpr std::string_view kType = "activation";
  using TypedOperation::TypedOperation;

  std::vector<ElementType> input_types() const override { return {c().type}; }
  OutputForm output() const override { return {0, c().size, c().type}; }
  size_t workspace_bytes(std::span<const Shape>) const override { return 0; }
  Status load() override { return kernels::load(arguments()); }
  Status enqueue(std::span<const Input> inputs, void* output, void*, cudaStream_t stream) override {
    kernels::GatedActivation activation = arguments();
    activation.output = output;
    activation.input = inputs[0].data;
    activation.rows = rows_of(inputs[0]);
    return launch(activation, stream);
  }

 private:
  kernels::GatedActivation arguments() const {
    using enum kernels::GatedActivationActivation;
    constexpr kernels::GatedActivationActivation kActivations[] = {kSilu, kGeluTanh, kGeluErf, kReluSquared};
    kernels::GatedActivation activation{};
    activation.dtype = data_type(c().type);
    activation.activation = kActivations[static_cast<int>(c().activation)];
    activation.gated = c().is_gated != 0;
    activation.size = c().size;
    activation.programmatic_launch = true;
    return activation;
  }
};

class EmbeddingOperation : public TypedOperation<EmbeddingOperation, EmbeddingConstants> {
 public:
  static constexpr std::string_view kType = "embedding";
  using TypedOperation::TypedOperation;

  std::vector<ElementType> input_types() const override { return {c().type, ElementType::kInt32}; }
  OutputForm output() const override { return {1, c().size, c().type}; }
  size_t workspace_bytes(std::span<const Shape>) const override { return 0; }
  Status load() override { return kernels::load(arguments()); }
  Status enqueue(std::span<const Input> inputs, void* output, void*, cudaStream_t stream) override {
    kernels::Embedding embedding = arguments();
    embedding.output = output;
    embedding.table = inputs[0].data;
    embedding.ids = static_cast<const int32_t*>(inputs[1].data);
    embedding.tokens = rows_of(inputs[1]);
    embedding.num_ids = rows_of(inputs[0]);
    return launch(embedding, stream);
  }

 private:
  kernels::Embedding arguments() const {
    kernels::Embedding embedding{};
    embedding.dtype = data_type(c().type);
    embedding.size = c().size;
    embedding.first_id = c().first_id;
    embedding.scale = c().scale;
    return embedding;
  }
};

}  // namespace

std::unique_ptr<Operation> make_rms_norm(const RmsNormConstants& constants) {
  return std::make_unique<RmsNormOperation>(constants);
}
std::unique_ptr<Operation> make_activation(const ActivationConstants& constants) {
  return std::make_unique<ActivationOperation>(constants);
}
std::unique_ptr<Operation> make_embedding(const EmbeddingConstants& constants) {
  return std::make_unique<EmbeddingOperation>(constants);
}

std::unique_ptr<Operation> read_rms_norm(std::span<const std::byte> constants) {
  return RmsNormOperation::read(constants);
}
std::unique_ptr<Operation> read_activation(std::span<const std::byte> constants) {
  return ActivationOperation::read(constants);
}
std::unique_ptr<Operation> read_embedding(std::span<const std::byte> constants) {
  return EmbeddingOperation::read(constants);
}

}  // namespace inflight::gpu
