#include "triton/request/input_tensors.h"

#include <algorithm>
#include <limits>

#include "common/error.h"
#include "triton/errors.h"

namespace inflight::triton {
namespace {

std::span<const std::byte> input_buffer(TRITONBACKEND_Input* input, uint32_t index, const std::string& name) {
  const void* data;
  uint64_t size;
  TRITONSERVER_MemoryType memory = TRITONSERVER_MEMORY_CPU;
  int64_t memory_id = 0;
  check(TRITONBACKEND_InputBuffer(input, index, &data, &size, &memory, &memory_id));
  if (memory == TRITONSERVER_MEMORY_GPU) {
    throw_error(ErrorCode::kUnsupported, name, " is in GPU memory; this version takes inputs from CPU memory only");
  }
  return {static_cast<const std::byte*>(data), size};
}

}  // namespace

std::string InputTensor::description() const {
  std::string text = concat(TRITONSERVER_DataTypeString(datatype), " [");
  for (size_t i = 0; i < shape.size(); ++i) text += concat(i == 0 ? "" : ",", shape[i]);
  return text + "]";
}

size_t InputTensor::num_elements() const {
  constexpr int64_t kLimit = std::numeric_limits<int32_t>::max();
  int64_t count = 1;
  for (const int64_t dimension : shape) {
    // Each dimension is checked, so that the product cannot wrap and none hides behind a dimension of 0.
    if (dimension < 0 || dimension > kLimit || (count *= dimension) > kLimit) {
      throw_error(ErrorCode::kInvalidArgument, name, " is ", description(), ", which is not a possible size");
    }
  }
  return count;
}

size_t InputTensor::num_elements(size_t element_size) const {
  const size_t count = num_elements();
  if (count * element_size != data.size()) {
    throw_error(ErrorCode::kInvalidArgument, name, " is ", description(), ", ", count * element_size, " bytes, but ",
                data.size(), " bytes arrived");
  }
  return count;
}

void InputTensor::refuse_datatype(TRITONSERVER_DataType expected) const {
  throw_error(ErrorCode::kInvalidArgument, name, " is ", description(), "; it must be ",
              TRITONSERVER_DataTypeString(expected));
}

template <>
void InputTensor::expect<int32_t>() const {
  if (datatype != TRITONSERVER_TYPE_INT32 && datatype != TRITONSERVER_TYPE_UINT32) {
    refuse_datatype(TRITONSERVER_TYPE_INT32);
  }
}

// UINT32 has the same bits, up to INT32's largest number.
template <>
std::vector<int32_t> InputTensor::values<int32_t>(size_t begin, size_t count) const {
  expect<int32_t>();
  num_elements(sizeof(int32_t));
  std::vector<int32_t> elements(count);
  if (count > 0) std::memcpy(elements.data(), data.data() + begin * sizeof(int32_t), count * sizeof(int32_t));
  if (datatype == TRITONSERVER_TYPE_INT32) return elements;
  const auto too_large = std::ranges::find_if(elements, [](int32_t value) { return value < 0; });
  if (too_large != elements.end()) {
    throw_error(ErrorCode::kInvalidArgument, name, " is ", static_cast<uint32_t>(*too_large), "; it must be at most ",
                std::numeric_limits<int32_t>::max());
  }
  return elements;
}

template <>
std::vector<bool> InputTensor::values<bool>(size_t begin, size_t count) const {
  expect<bool>();
  num_elements(1);
  std::vector<bool> elements(count);
  for (size_t i = 0; i < count; ++i) elements[i] = data[begin + i] != std::byte{0};
  return elements;
}

// Each string comes after its length, 4 bytes with the least significant first.
template <>
std::vector<std::string> InputTensor::values<std::string>(size_t begin, size_t count) const {
  expect<std::string>();
  std::vector<std::string> elements;
  std::span<const std::byte> rest = data;
  for (size_t i = 0; i < begin + count; ++i) {
    uint32_t length = 0;
    const bool has_length = rest.size() >= sizeof(length);
    if (has_length) std::memcpy(&length, rest.data(), sizeof(length));
    if (!has_length || length > rest.size() - sizeof(length)) {
      throw_error(ErrorCode::kInvalidArgument, name, " is ", description(), ", but the ", data.size(),
                  " bytes that arrived end within string ", i);
    }
    const char* characters = reinterpret_cast<const char*>(rest.data()) + sizeof(length);
    if (i >= begin) elements.emplace_back(characters, length);
    rest = rest.subspan(sizeof(length) + length);
  }
  return elements;
}

InputTensors::InputTensors(TRITONBACKEND_Request* request) {
  uint32_t count;
  check(TRITONBACKEND_RequestInputCount(request, &count));
  for (uint32_t i = 0; i < count; ++i) {
    TRITONBACKEND_Input* input;
    check(TRITONBACKEND_RequestInputByIndex(request, i, &input));
    const char* name;
    TRITONSERVER_DataType datatype;
    const int64_t* shape;
    uint32_t rank, num_buffers;
    uint64_t size;
    check(TRITONBACKEND_InputProperties(input, &name, &datatype, &shape, &rank, &size, &num_buffers));

    InputTensor tensor{name, datatype, {shape, shape + rank}, {}};
    if (num_buffers == 1) {
      tensor.data = input_buffer(input, 0, tensor.name);
    } else {
      auto& bytes = joined_.emplace_back();
      for (uint32_t buffer = 0; buffer < num_buffers; ++buffer) {
        const auto part = input_buffer(input, buffer, tensor.name);
        bytes.insert(bytes.end(), part.begin(), part.end());
      }
      tensor.data = bytes;
    }
    tensors_.emplace(name, std::move(tensor));
  }
}

const InputTensor* InputTensors::find(const std::string& name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

const InputTensor& InputTensors::required(const std::string& name) const {
  const InputTensor* tensor = find(name);
  if (tensor == nullptr) throw_error(ErrorCode::kInvalidArgument, name, " is missing; it is required");
  return *tensor;
}

void InputTensors::refuse_scalar(const InputTensor& tensor, size_t batch_size) {
  throw_error(
      ErrorCode::kInvalidArgument, tensor.name, " is ", tensor.description(), "; it must hold ",
      batch_size == 1 ? std::string("one value") : concat("one value for each of the ", batch_size, " sequences"));
}

}  // namespace inflight::triton
