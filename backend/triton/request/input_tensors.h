#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "triton/triton_api.h"

namespace inflight::triton {

template <class T>
inline constexpr TRITONSERVER_DataType kDataType = TRITONSERVER_TYPE_INVALID;
template <>
inline constexpr TRITONSERVER_DataType kDataType<bool> = TRITONSERVER_TYPE_BOOL;
template <>
inline constexpr TRITONSERVER_DataType kDataType<int32_t> = TRITONSERVER_TYPE_INT32;
template <>
inline constexpr TRITONSERVER_DataType kDataType<int64_t> = TRITONSERVER_TYPE_INT64;
template <>
inline constexpr TRITONSERVER_DataType kDataType<uint64_t> = TRITONSERVER_TYPE_UINT64;
template <>
inline constexpr TRITONSERVER_DataType kDataType<float> = TRITONSERVER_TYPE_FP32;
template <>
inline constexpr TRITONSERVER_DataType kDataType<_Float16> = TRITONSERVER_TYPE_FP16;
template <>
inline constexpr TRITONSERVER_DataType kDataType<std::string> = TRITONSERVER_TYPE_BYTES;

// One input of a request: a view that lives as long as the request and its InputTensors.
struct InputTensor {
  std::string name;
  TRITONSERVER_DataType datatype;
  std::vector<int64_t> shape;
  std::span<const std::byte> data;

  // "INT32 [1,2]", for messages.
  std::string description() const;
  // The product of the shape. Throws kInvalidArgument unless it is what `data` holds.
  size_t num_elements(size_t element_size) const;
  // The same without a look at `data`.
  size_t num_elements() const;
  // Throws kInvalidArgument unless elements of the datatype can be read as T.
  template <class T>
  void expect() const {
    if (datatype != kDataType<T>) refuse_datatype(kDataType<T>);
  }

  // Elements begin .. begin + count - 1 in row-major order, all of which must be there. Throws kInvalidArgument on
  // another datatype, and where the data are not of the shape's size. Triton's buffers are not aligned, hence the copy.
  template <class T>
  std::vector<T> values(size_t begin, size_t count) const {
    expect<T>();
    num_elements(sizeof(T));
    std::vector<T> elements(count);
    if (count > 0) std::memcpy(elements.data(), data.data() + begin * sizeof(T), count * sizeof(T));
    return elements;
  }
  template <class T>
  std::vector<T> values() const {
    return values<T>(0, num_elements());
  }

 private:
  [[noreturn]] void refuse_datatype(TRITONSERVER_DataType expected) const;
};

// TensorRT-LLM's repositories and clients of 0.5 and 0.6 have UINT32 where later ones have INT32.
template <>
void InputTensor::expect<int32_t>() const;
template <>
std::vector<int32_t> InputTensor::values<int32_t>(size_t begin, size_t count) const;
template <>
std::vector<bool> InputTensor::values<bool>(size_t begin, size_t count) const;
template <>
std::vector<std::string> InputTensor::values<std::string>(size_t begin, size_t count) const;

// The inputs of one request, by name.
class InputTensors {
 public:
  explicit InputTensors(TRITONBACKEND_Request* request);

  const std::map<std::string, InputTensor>& all() const { return tensors_; }
  const InputTensor* find(const std::string& name) const;
  // Throws kInvalidArgument when it is missing.
  const InputTensor& required(const std::string& name) const;

  // The scalar of sequence `index` of a batch: one element for each sequence in any shape, such as [1], [1,1]
  // and [batch,1]. Throws kInvalidArgument on another number of elements or another datatype.
  template <class T>
  std::optional<T> scalar(const std::string& name, size_t index, size_t batch_size) const {
    const InputTensor* tensor = find(name);
    if (tensor == nullptr) return std::nullopt;
    tensor->expect<T>();
    if (tensor->num_elements() != batch_size) refuse_scalar(*tensor, batch_size);
    return tensor->values<T>(index, 1).front();
  }

 private:
  [[noreturn]] static void refuse_scalar(const InputTensor& tensor, size_t batch_size);

  std::map<std::string, InputTensor> tensors_;
  std::deque<std::vector<std::byte>> joined_;  // inputs that arrived in several buffers
};

}  // namespace inflight::triton
