#include "triton/response_writer.h"

#include <algorithm>

#include "common/error.h"
#include "triton/errors.h"
#include "triton/input_tensors.h"

namespace inflight::triton {
namespace {

constexpr const char* kGenerationId = "generation_id";

}  // namespace

ResponseWriter::ResponseWriter(const std::vector<std::string>& outputs, bool has_batch_dimension, bool return_log_probs)
    : outputs_(outputs.begin(), outputs.end()),
      has_batch_dimension_(has_batch_dimension),
      return_log_probs_(return_log_probs) {}

template <class T>
void ResponseWriter::add(TRITONBACKEND_Response* response, const char* name, std::vector<int64_t> shape,
                         const std::vector<T>& values) const {
  if (!outputs_.contains(name)) return;
  if (has_batch_dimension_) shape.insert(shape.begin(), 1);
  TRITONBACKEND_Output* output;
  check(TRITONBACKEND_ResponseOutput(response, &output, name, kDataType<T>, shape.data(), shape.size()));
  void* buffer = nullptr;
  TRITONSERVER_MemoryType memory = TRITONSERVER_MEMORY_CPU;
  int64_t memory_id = 0;
  check(TRITONBACKEND_OutputBuffer(output, &buffer, values.size() * sizeof(T), &memory, &memory_id));
  if (memory == TRITONSERVER_MEMORY_GPU) {
    throw_error(ErrorCode::kUnsupported, name,
                " is wanted in GPU memory; this version gives outputs in CPU memory only");
  }
  std::copy(values.begin(), values.end(), static_cast<T*>(buffer));
}

void ResponseWriter::write(TRITONBACKEND_Response* response, const Response& content, std::span<const int32_t> prompt,
                           int32_t batch_index) const {
  std::vector<int32_t> ids(prompt.begin(), prompt.end());
  ids.insert(ids.end(), content.tokens.begin(), content.tokens.end());
  const auto length = static_cast<int32_t>(ids.size());

  std::vector<int32_t> preceding(kPrecedingTokens, -1);
  std::copy_backward(content.preceding_tokens.begin(), content.preceding_tokens.end(), preceding.end());

  add(response, "output_ids", {1, length}, ids);
  add<int32_t>(response, "sequence_length", {1}, {length});
  add<int32_t>(response, "preceding_ids", {kPrecedingTokens}, preceding);
  add<bool>(response, "sequence_finished", {1}, {content.is_final});
  add<int32_t>(response, "batch_index", {1}, {batch_index});
  add<int32_t>(response, "sequence_index", {1}, {0});
  add<int32_t>(response, "kv_cache_alloc_new_blocks", {1}, {content.kv_cache_alloc_total_blocks});
  add<int32_t>(response, "kv_cache_reused_blocks", {1}, {0});
  add<int32_t>(response, "kv_cache_alloc_total_blocks", {1}, {content.kv_cache_alloc_total_blocks});
  if (return_log_probs_) {
    const auto generated = static_cast<int64_t>(content.log_probs.size());
    add(response, "output_log_probs", {1, generated}, content.log_probs);
    add<float>(response, "cum_log_probs", {1}, {content.cum_log_prob});
  }
}

bool ResponseWriter::announces() const { return outputs_.size() == 1 && outputs_.contains(kGenerationId); }

void ResponseWriter::write_announcement(TRITONBACKEND_Response* response, uint64_t generation_id) const {
  add<uint64_t>(response, kGenerationId, {1}, {generation_id});
}

ResponseWriter ResponseWriter::for_outputs(const std::vector<std::string>& outputs) const {
  return {outputs, has_batch_dimension_, return_log_probs_};
}

}  // namespace inflight::triton
