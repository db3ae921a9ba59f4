#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/word_list.h"
#include "triton/request/input_tensors.h"

namespace inflight::triton {

// What one sequence of a request's batch has of the request's inputs. All methods throw kInvalidArgument naming a
// tensor of another datatype or shape.
class SequenceTensors {
 public:
  // `inputs` must outlive it.
  SequenceTensors(const InputTensors& inputs, size_t index, size_t batch_size)
      : inputs_(inputs), index_(index), batch_size_(batch_size) {}

  template <class T>
  std::optional<T> scalar(const std::string& name) const {
    return inputs_.scalar<T>(name, index_, batch_size_);
  }
  template <class T>
  T required_scalar(const std::string& name) const {
    inputs_.required(name);
    return *scalar<T>(name);
  }
  // Leaves `member` as it is where there is no such tensor.
  template <class T>
  void read(T& member, const std::string& name) const {
    if (const auto value = scalar<T>(name)) member = *value;
  }

  // Of a tensor of shape [batch, n], or [n] where the batch is one sequence.
  template <class T>
  std::optional<std::vector<T>> list(const std::string& name) const {
    const InputTensor* tensor = inputs_.find(name);
    if (tensor == nullptr) return std::nullopt;
    return slice<T>(*tensor, 1, "[n]");
  }

  // TensorRT-LLM's word lists, [batch, 2, n] or [2, n]: row 0 holds the words' tokens one after another, row 1 the end
  // of each word in row 0, padded with -1.
  WordList words(const std::string& name) const;

 private:
  template <class T>
  std::vector<T> slice(const InputTensor& tensor, size_t rank, const char* expected) const {
    check_shape(tensor, rank, expected);
    const size_t length = tensor.num_elements() / batch_size_;
    return tensor.values<T>(index_ * length, length);
  }
  void check_shape(const InputTensor& tensor, size_t rank, const char* expected) const;
  [[noreturn]] void refuse_shape(const InputTensor& tensor, const char* expected) const;

  const InputTensors& inputs_;
  const size_t index_;
  const size_t batch_size_;
};

}  // namespace inflight::triton
