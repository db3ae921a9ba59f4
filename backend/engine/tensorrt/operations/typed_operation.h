#pragma once

#include "engine/tensorrt/operations/constants.h"
#include "engine/tensorrt/operations/operations.h"

namespace inflight::gpu {

// An operation whose constants are one trivially copyable struct.
template <class Derived, class Constants>
class TypedOperation : public Operation {
 public:
  explicit TypedOperation(const Constants& constants) : constants_(constants) {}

  std::string_view type() const override { return Derived::kType; }
  std::vector<std::byte> constants() const override {
    ConstantWriter writer;
    writer.add(constants_);
    return writer.take();
  }
  std::unique_ptr<Operation> copy() const override { return std::make_unique<Derived>(constants_); }

  static std::unique_ptr<Operation> read(std::span<const std::byte> bytes) {
    ConstantReader reader(bytes);
    const auto constants = reader.next<Constants>();
    reader.finish();
    return std::make_unique<Derived>(constants);
  }

 protected:
  const Constants& c() const { return constants_; }

 private:
  Constants constants_;
};

inline kernels::DataType data_type(ElementType type) {
  switch (type) {
    case ElementType::kBFloat16: return kernels::DataType::kBFloat16;
    case ElementType::kFloat16: return kernels::DataType::kFloat16;
    case ElementType::kFloat8E4M3: return kernels::DataType::kFloat8E4M3;
    case ElementType::kFloat32: return kernels::DataType::kFloat32;
    case ElementType::kInt32: return kernels::DataType::kInt32;
    case ElementType::kInt8: return kernels::DataType::kInt8;
  }
  return kernels::DataType::kBFloat16;
}

// What each file of operations reads.
std::unique_ptr<Operation> read_gemm(std::span<const std::byte> constants);
std::unique_ptr<Operation> read_rms_norm(std::span<const std::byte> constants);
std::unique_ptr<Operation> read_activation(std::span<const std::byte> constants);
std::unique_ptr<Operation> read_embedding(std::span<const std::byte> constants);
std::unique_ptr<Operation> read_attention(std::span<const std::byte> constants);
std::unique_ptr<Operation> read_sampling(std::span<const std::byte> constants);

}  // namespace inflight::gpu
