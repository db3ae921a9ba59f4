#include "triton/request/request_reader.h"

#include <algorithm>
#include <chrono>

#include "common/error.h"
#include "common/logging.h"
#include "triton/errors.h"
#include "triton/request/guided_decoding_reader.h"
#include "triton/request/input_tensors.h"
#include "triton/request/request_parameters.h"
#include "triton/request/retention_reader.h"
#include "triton/request/sampling_reader.h"
#include "triton/request/sequence_tensors.h"
#include "triton/request/unserved_tensors.h"

namespace inflight::triton {
namespace {

template <class... Args>
[[noreturn]] void invalid(const Args&... args) {
  throw_error(ErrorCode::kInvalidArgument, args...);
}

std::vector<int32_t> read_prompt(const SequenceTensors& tensors) {
  auto tokens = *tensors.list<int32_t>("input_ids");
  const auto length = tensors.required_scalar<int32_t>("input_lengths");
  if (length < 0 || static_cast<size_t>(length) > tokens.size()) {
    invalid("input_lengths is ", length, "; it must be 0 to ", tokens.size(), ", the number of input_ids");
  }
  tokens.resize(length);
  return tokens;
}

// Zeros are none. As input_ids, they may be padded.
std::vector<uint64_t> read_extra_ids(const SequenceTensors& tensors, size_t prompt_length) {
  auto ids = tensors.list<uint64_t>("prompt_table_extra_ids").value_or(std::vector<uint64_t>());
  if (std::all_of(ids.begin(), ids.end(), [](uint64_t id) { return id == 0; })) return {};
  if (ids.size() > prompt_length && ids.size() == tensors.list<int32_t>("input_ids")->size()) ids.resize(prompt_length);
  return ids;
}

// With beam search all beams, unless the client says how many.
int32_t read_num_return_sequences(const SequenceTensors& tensors, const BeamSearchConfig& beam_search,
                                  const BackendConfig& config) {
  const int32_t beam_width = beam_search.beam_width;
  if (config.max_beam_width && beam_width > *config.max_beam_width) {
    invalid("beam_width is ", beam_width, ", but parameter max_beam_width of ", config.file.string(), " is ",
            *config.max_beam_width);
  }
  const int32_t count = tensors.scalar<int32_t>("num_return_sequences").value_or(std::max(beam_width, 1));
  if (count > 1 && beam_width <= 1 && !config.decoupled) {
    invalid("num_return_sequences is ", count, ": each sequence has a response of its own, so ", config.file.string(),
            " must set decoupled: true; or send one request for each sequence");
  }
  return count;
}

// Empty strings are none. Where the tokenizer is not known, stop_words_list has to do.
StopTexts read_stop_texts(const SequenceTensors& tensors, const BackendConfig& config) {
  StopTexts stop;
  stop.texts = tensors.list<std::string>("stop_words").value_or(std::vector<std::string>());
  std::erase(stop.texts, "");
  if (config.batch_manager.tokenizer_dir.empty() && !tensors.words("stop_words_list").empty()) stop.texts.clear();
  tensors.read(stop.include_in_output, "include_stop_str_in_output");
  stop.skip_special_tokens = config.skip_special_tokens;
  return stop;
}

// TensorRT-LLM generates as much as there is room for, and says so in its log.
int32_t read_max_new_tokens(const SequenceTensors& tensors, size_t prompt_length, const EngineInfo& engine) {
  const auto wanted = tensors.required_scalar<int32_t>("request_output_len");
  const int32_t room = engine.max_seq_len - static_cast<int32_t>(prompt_length);
  if (wanted <= room || room <= 0) return wanted;
  log_warning("request_output_len (max_tokens) is ", wanted, ", and input_ids has ", prompt_length,
              " tokens: this engine takes at most ", engine.max_seq_len, " together, so that ", room,
              " are generated; ask for less, or rebuild with a larger --max-seq-len");
  return room;
}

Request read_sequence(const SequenceTensors& tensors, const BackendConfig& config, const EngineInfo& engine) {
  Request request;
  request.input_ids = read_prompt(tensors);
  request.max_new_tokens = read_max_new_tokens(tensors, request.input_ids.size(), engine);
  request.sampling = read_sampling(tensors, engine);
  request.stop_words = tensors.words("stop_words_list");
  request.bad_words = tensors.words("bad_words_list");
  request.stop_texts = read_stop_texts(tensors, config);
  request.beam_search = read_beam_search(tensors);
  request.num_return_sequences = read_num_return_sequences(tensors, request.beam_search, config);
  request.draft_tokens = tensors.list<int32_t>("draft_input_ids").value_or(std::vector<int32_t>());
  request.num_draft_tokens = tensors.scalar<int32_t>("num_draft_tokens");
  request.guided_decoding = read_guided_decoding(tensors);
  tensors.read(request.return_context_logits, "return_context_logits");
  tensors.read(request.return_generation_logits, "return_generation_logits");
  request.retention = read_retention(tensors);
  request.prompt_extra_ids = read_extra_ids(tensors, request.input_ids.size());
  return request;
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

size_t read_batch_size(const InputTensor& input_ids, const BackendConfig& config) {
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

InferenceRequest read_request(TRITONBACKEND_Request* request, const BackendConfig& config, const EngineInfo& engine) {
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

  const RequestParameters parameters = read_request_parameters(request);  // what is missing may be misspelled there
  const InputTensor& input_ids = inputs.required("input_ids");
  const size_t batch_size = read_batch_size(input_ids, config);
  const bool streaming = read_flag(inputs, "streaming").value_or(false);
  if (streaming && !config.decoupled) {
    invalid("streaming is true, but ", config.file.string(),
            " does not set decoupled: true; set decoupled_mode or send ", "streaming: false");
  }
  const auto now = std::chrono::steady_clock::now();
  for (size_t i = 0; i < batch_size; ++i) {
    Request& sequence = result.sequences.emplace_back();
    sequence = read_sequence(SequenceTensors(inputs, i, batch_size), config, engine);
    sequence.streaming = streaming;
    if (parameters.priority) sequence.priority = *parameters.priority;
    if (parameters.timeout) sequence.deadline = now + *parameters.timeout;
  }
  result.return_kv_cache_reuse_stats = read_flag(inputs, "return_kv_cache_reuse_stats").value_or(false);
  result.return_perf_metrics = read_flag(inputs, "return_perf_metrics").value_or(false);
  result.return_num_input_tokens = read_flag(inputs, "return_num_input_tokens").value_or(false);
  result.return_num_output_tokens = read_flag(inputs, "return_num_output_tokens").value_or(false);
  result.exclude_input_in_output =
      read_flag(inputs, "exclude_input_in_output").value_or(config.exclude_input_in_output);
  for (Request& sequence : result.sequences) {
    sequence.stop_texts.follows_prompt = !sequence.streaming && !result.exclude_input_in_output;
  }
  return result;
}

}  // namespace inflight::triton
