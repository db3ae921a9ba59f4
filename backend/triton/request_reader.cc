#include "triton/request_reader.h"

#include <algorithm>

#include "common/error.h"
#include "triton/errors.h"
#include "triton/input_tensors.h"
#include "triton/unserved_tensors.h"

namespace inflight::triton {
namespace {

template <class... Args>
[[noreturn]] void invalid(const Args&... args) {
  throw_error(ErrorCode::kInvalidArgument, args...);
}

// A tensor of shape [batch, dims…], or [dims…] where the batch is one sequence: the elements of each sequence.
class BatchedValues {
 public:
  // `expected` names the shape of one sequence in messages, such as "[2, words]".
  BatchedValues(const InputTensor& tensor, size_t rank, size_t batch_size, const char* expected)
      : values_(tensor.values<int32_t>()), columns_(tensor.shape.empty() ? 0 : tensor.shape.back()) {
    const bool batched = tensor.shape.size() == rank + 1 && static_cast<size_t>(tensor.shape[0]) == batch_size;
    const bool single = tensor.shape.size() == rank && batch_size == 1;
    const bool rows_fit = rank == 1 || (tensor.shape.size() >= 2 && tensor.shape[tensor.shape.size() - 2] == 2);
    if (!(batched || single) || !rows_fit) {
      invalid(tensor.name, " is ", tensor.description(), "; it must be INT32 ", expected,
              batch_size == 1 ? "" : concat(" for each of the ", batch_size, " sequences"));
    }
    per_sequence_ = values_.size() / batch_size;
  }

  size_t columns() const { return columns_; }
  std::span<const int32_t> sequence(size_t index) const {
    return std::span(values_).subspan(index * per_sequence_, per_sequence_);
  }

 private:
  std::vector<int32_t> values_;
  size_t columns_;
  size_t per_sequence_;
};

// TensorRT-LLM's word lists: row 0 holds the words' tokens one after another, row 1 the end of each word in row 0,
// padded with -1.
std::vector<std::vector<int32_t>> read_words(const InputTensors& inputs, const char* name, size_t index,
                                             size_t batch_size) {
  const InputTensor* tensor = inputs.find(name);
  if (tensor == nullptr) return {};
  const BatchedValues lists(*tensor, 2, batch_size, "[2, tokens]");
  const auto list = lists.sequence(index);
  const auto tokens = list.first(lists.columns());
  const auto ends = list.last(lists.columns());

  std::vector<std::vector<int32_t>> words;
  const auto padding = std::find(ends.begin(), ends.end(), -1);
  int32_t begin = 0;
  for (auto end = ends.begin(); end != padding; ++end) {
    const auto position = end - ends.begin();
    if (*end <= begin || static_cast<size_t>(*end) > tokens.size()) {
      invalid(name, " has the offset ", *end, " at position ", position, "; the offsets must rise from 1 to at most ",
              tokens.size(), ", the number of tokens, and -1 fills the rest");
    }
    words.emplace_back(tokens.begin() + begin, tokens.begin() + *end);
    begin = *end;
  }
  if (const auto stray = std::find_if(padding, ends.end(), [](int32_t end) { return end != -1; });
      stray != ends.end()) {
    invalid(name, " has the offset ", *stray, " at position ", stray - ends.begin(),
            ", after a -1; only -1 may follow -1");
  }
  return words;
}

std::vector<int32_t> read_end_ids(std::optional<int32_t> end_id, const EngineInfo& engine) {
  const auto& own = engine.end_ids;
  if (!end_id || std::find(own.begin(), own.end(), *end_id) != own.end()) return own;
  return {*end_id};
}

std::vector<int32_t> read_prompt(const BatchedValues& input_ids, const InputTensors& inputs, size_t index,
                                 size_t batch_size) {
  const auto padded = input_ids.sequence(index);
  inputs.required("input_lengths");
  const int32_t length = *inputs.scalar<int32_t>("input_lengths", index, batch_size);
  if (length < 0 || static_cast<size_t>(length) > padded.size()) {
    invalid("input_lengths is ", length, "; it must be 0 to ", padded.size(), ", the number of input_ids");
  }
  return {padded.begin(), padded.begin() + length};
}

SamplingConfig read_sampling(const InputTensors& inputs, size_t index, size_t batch_size, const EngineInfo& engine) {
  const auto set = [&]<class T>(T& member, const char* name) {
    if (const auto value = inputs.scalar<T>(name, index, batch_size)) member = *value;
  };
  SamplingConfig sampling;
  set(sampling.top_k, "runtime_top_k");
  set(sampling.top_p, "runtime_top_p");
  set(sampling.temperature, "temperature");
  set(sampling.random_seed, "random_seed");
  set(sampling.repetition_penalty, "repetition_penalty");
  set(sampling.presence_penalty, "presence_penalty");
  set(sampling.frequency_penalty, "frequency_penalty");
  set(sampling.min_length, "min_length");
  set(sampling.return_log_probs, "return_log_probs");
  sampling.end_ids = read_end_ids(inputs.scalar<int32_t>("end_id", index, batch_size), engine);
  sampling.bad_words = read_words(inputs, "bad_words_list", index, batch_size);
  return sampling;
}

// A flag that holds for the whole request: all sequences must agree.
std::optional<bool> read_flag(const InputTensors& inputs, const char* name) {
  const InputTensor* tensor = inputs.find(name);
  if (tensor == nullptr) return std::nullopt;
  const auto values = tensor->values<bool>();
  if (values.empty()) invalid(name, " is ", tensor->description(), "; it must hold one value");
  if (std::find(values.begin(), values.end(), !values.front()) != values.end()) {
    invalid(name, " differs between the sequences of the batch; send them as separate requests");
  }
  return values.front();
}

size_t read_batch_size(const InputTensor& input_ids, const ModelConfig& config) {
  if (config.max_batch_size == 0 || input_ids.shape.size() != 2) return 1;
  const size_t batch_size = input_ids.shape[0];
  if (batch_size == 0) invalid("input_ids is ", input_ids.description(), "; it must hold at least one sequence");
  if (batch_size > 1 && !config.decoupled) {
    invalid("input_ids is ", input_ids.description(), ": a batch of ", batch_size,
            " sequences has a response each, so ", config.file.string(),
            " must set decoupled: true; or send one request for each sequence");
  }
  return batch_size;
}

std::vector<std::string> read_output_names(TRITONBACKEND_Request* request) {
  uint32_t count;
  check(TRITONBACKEND_RequestOutputCount(request, &count));
  std::vector<std::string> names;
  for (uint32_t i = 0; i < count; ++i) {
    const char* name;
    check(TRITONBACKEND_RequestOutputName(request, i, &name));
    names.emplace_back(name);
  }
  return names;
}

}  // namespace

InferenceRequest read_request(TRITONBACKEND_Request* request, const ModelConfig& config, const EngineInfo& engine) {
  InferenceRequest result;
  const char* id;
  check(TRITONBACKEND_RequestId(request, &id));
  if (id != nullptr) result.id = id;

  const InputTensors inputs(request);
  result.stop = read_flag(inputs, "stop").value_or(false);
  if (result.stop) {
    if (result.id.empty()) invalid("stop is true, but the request has no id; give the id of the request to cancel");
    return result;
  }
  result.outputs = read_output_names(request);
  result.fetched_generation = inputs.scalar<uint64_t>("generation_id", 0, 1);
  if (result.fetched_generation) return result;
  refuse_unserved(inputs);

  const InputTensor& input_ids = inputs.required("input_ids");
  const size_t batch_size = read_batch_size(input_ids, config);
  const bool streaming = read_flag(inputs, "streaming").value_or(false);
  if (streaming && !config.decoupled) {
    invalid("streaming is true, but ", config.file.string(),
            " does not set decoupled: true; set decoupled_mode or send ", "streaming: false");
  }
  const BatchedValues prompts(input_ids, 1, batch_size, "[tokens]");
  inputs.required("request_output_len");
  for (size_t i = 0; i < batch_size; ++i) {
    Request& sequence = result.sequences.emplace_back();
    sequence.input_ids = read_prompt(prompts, inputs, i, batch_size);
    sequence.max_new_tokens = *inputs.scalar<int32_t>("request_output_len", i, batch_size);
    sequence.sampling = read_sampling(inputs, i, batch_size, engine);
    sequence.stop_words = read_words(inputs, "stop_words_list", i, batch_size);
    sequence.streaming = streaming;
  }
  result.exclude_input_in_output =
      read_flag(inputs, "exclude_input_in_output").value_or(config.exclude_input_in_output);
  return result;
}

}  // namespace inflight::triton
