#include "triton/request/sequence_tensors.h"

#include <algorithm>

#include "common/error.h"

namespace inflight::triton {

void SequenceTensors::check_shape(const InputTensor& tensor, size_t rank, const char* expected) const {
  const bool batched = tensor.shape.size() == rank + 1 && static_cast<size_t>(tensor.shape[0]) == batch_size_;
  const bool single = tensor.shape.size() == rank && batch_size_ == 1;
  if (!batched && !single) refuse_shape(tensor, expected);
}

void SequenceTensors::refuse_shape(const InputTensor& tensor, const char* expected) const {
  throw_error(ErrorCode::kInvalidArgument, tensor.name, " is ", tensor.description(), "; its shape must be ", expected,
              batch_size_ == 1 ? "" : concat(" for each of the ", batch_size_, " sequences"));
}

WordList SequenceTensors::words(const std::string& name) const {
  const InputTensor* tensor = inputs_.find(name);
  if (tensor == nullptr) return {};
  const auto list = slice<int32_t>(*tensor, 2, "[2, n]");
  if (tensor->shape[tensor->shape.size() - 2] != 2) refuse_shape(*tensor, "[2, n]");
  const auto tokens = std::span(list).first(list.size() / 2);
  const auto ends = std::span(list).last(list.size() / 2);

  WordList words;
  const auto padding = std::find(ends.begin(), ends.end(), -1);
  int32_t begin = 0;
  for (auto end = ends.begin(); end != padding; ++end) {
    if (*end <= begin || static_cast<size_t>(*end) > tokens.size()) {
      throw_error(ErrorCode::kInvalidArgument, name, " has the offset ", *end, " at position ", end - ends.begin(),
                  "; the offsets must rise from 1 to at most ", tokens.size(),
                  ", the number of tokens, and -1 fills the rest");
    }
    words.add(tokens.subspan(begin, *end - begin));
    begin = *end;
  }
  const auto stray = std::find_if(padding, ends.end(), [](int32_t end) { return end != -1; });
  if (stray != ends.end()) {
    throw_error(ErrorCode::kInvalidArgument, name, " has the offset ", *stray, " at position ", stray - ends.begin(),
                ", after a -1; only -1 may follow -1");
  }
  return words;
}

}  // namespace inflight::triton
