#include "triton/response/response_writer.h"

#include <algorithm>
#include <chrono>

#include "common/error.h"
#include "triton/errors.h"
#include "triton/request/input_tensors.h"

namespace inflight::triton {
namespace {

constexpr const char* kGenerationId = "generation_id";

// One row of output_ids: a sequence or a beam.
struct Row {
  std::span<const int32_t> tokens;
  std::span<const float> log_probs;
  float cum_log_prob;
  int32_t num_cut_bytes;
};

std::vector<Row> rows_of(const Response& content) {
  if (content.beams.empty())
    return {{content.tokens, content.log_probs, content.cum_log_prob, content.stop.num_cut_bytes}};
  std::vector<Row> rows;
  for (const Beam& beam : content.beams) {
    rows.push_back({beam.tokens, beam.log_probs, beam.cum_log_prob, beam.stop.num_cut_bytes});
  }
  return rows;
}

// A matrix [rows, columns] whose rows begin with what was added, and are -1 from there on.
template <class T>
class PaddedRows {
 public:
  PaddedRows(size_t rows, size_t columns) : values_(rows * columns, T(-1)), columns_(columns) {}

  void write(size_t row, size_t begin, std::span<const T> values) {
    std::copy(values.begin(), values.end(), values_.begin() + row * columns_ + begin);
  }
  std::span<const T> values() const { return values_; }

 private:
  std::vector<T> values_;
  size_t columns_;
};

}  // namespace

ResponseWriter::ResponseWriter(const std::vector<std::string>& outputs, const ResponseFormat& format)
    : outputs_(outputs.begin(), outputs.end()), format_(format) {}

template <class T>
void ResponseWriter::add(TRITONBACKEND_Response* response, const char* name, std::vector<int64_t> shape,
                         std::span<const T> values) const {
  if (!outputs_.contains(name)) return;
  if (format_.has_batch_dimension) shape.insert(shape.begin(), 1);
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

void ResponseWriter::write(TRITONBACKEND_Response* response, const Response& content, const PromptOutput& prompt,
                           int32_t batch_index) const {
  write_sequences(response, content, prompt.tokens);

  std::vector<int32_t> preceding(kPrecedingTokens, -1);
  std::copy_backward(content.preceding_tokens.begin(), content.preceding_tokens.end(), preceding.end());
  add<int32_t>(response, "preceding_ids", {kPrecedingTokens}, preceding);
  add_scalar<bool>(response, "sequence_finished", content.is_sequence_final);
  add_scalar<int32_t>(response, "batch_index", batch_index);
  add_scalar<int32_t>(response, "sequence_index", content.sequence_index);
  write_logits(response, content);
  write_counts(response, content, prompt.num_tokens);
  if (format_.return_perf_metrics) write_perf_metrics(response, content.perf_metrics);
}

void ResponseWriter::write_logits(TRITONBACKEND_Response* response, const Response& content) const {
  const float zero = 0.0f;
  if (content.context_logits != nullptr) {
    const auto rows = static_cast<int64_t>(content.context_logits->size()) / format_.vocab_size;
    add_logits(response, "context_logits", {rows, format_.vocab_size}, *content.context_logits);
  } else if (format_.fills_unasked) {
    add_logits(response, "context_logits", {1, 1}, {&zero, 1});
  }
  if (format_.return_generation_logits) {
    const auto rows = static_cast<int64_t>(content.generation_logits.size()) / format_.vocab_size;
    add_logits(response, "generation_logits", {1, rows, format_.vocab_size}, content.generation_logits);
  } else if (format_.fills_unasked) {
    add_logits(response, "generation_logits", {1, 1, 1}, {&zero, 1});
  }
}

void ResponseWriter::write_counts(TRITONBACKEND_Response* response, const Response& content,
                                  int32_t num_input_tokens) const {
  if (format_.return_kv_cache_reuse_stats || format_.return_perf_metrics) {
    add_scalar<int32_t>(response, "kv_cache_alloc_new_blocks", content.kv_cache_alloc_new_blocks);
    add_scalar<int32_t>(response, "kv_cache_reused_blocks", content.kv_cache_reused_blocks);
    add_scalar<int32_t>(response, "kv_cache_alloc_total_blocks", content.kv_cache_alloc_total_blocks);
  }
  if (format_.return_num_input_tokens) add_scalar<int32_t>(response, "num_input_tokens", num_input_tokens);
  if (!format_.return_num_output_tokens) return;
  size_t num_output_tokens = 0;
  for (const Row& row : rows_of(content)) num_output_tokens += row.tokens.size();
  add_scalar<int32_t>(response, "num_output_tokens", static_cast<int32_t>(num_output_tokens));
}

void ResponseWriter::write_perf_metrics(TRITONBACKEND_Response* response, const PerfMetrics& metrics) const {
  const auto add_time = [&](const char* name, PerfMetrics::TimePoint time) {
    const std::chrono::nanoseconds since_epoch = time.time_since_epoch();
    add_scalar<int64_t>(response, name, since_epoch.count());
  };
  add_time("arrival_time_ns", metrics.arrival);
  add_time("first_scheduled_time_ns", metrics.first_scheduled);
  add_time("first_token_time_ns", metrics.first_token);
  add_time("last_token_time_ns", metrics.last_token);
  const auto accepted = static_cast<float>(metrics.accepted_draft_tokens);
  add_scalar<float>(response, "acceptance_rate",
                    metrics.draft_tokens == 0 ? 0.0f : accepted / static_cast<float>(metrics.draft_tokens));
  add_scalar<int32_t>(response, "total_accepted_draft_tokens", metrics.accepted_draft_tokens);
  add_scalar<int32_t>(response, "total_draft_tokens", metrics.draft_tokens);
}

void ResponseWriter::write_sequences(TRITONBACKEND_Response* response, const Response& content,
                                     std::span<const int32_t> prompt) const {
  const std::vector<Row> rows = rows_of(content);
  const auto num_rows = static_cast<int64_t>(rows.size());
  size_t num_tokens = 0, num_log_probs = 0;
  for (const Row& row : rows) {
    num_tokens = std::max(num_tokens, prompt.size() + row.tokens.size());
    num_log_probs = std::max(num_log_probs, row.log_probs.size());
  }

  PaddedRows<int32_t> ids(rows.size(), num_tokens);
  PaddedRows<float> log_probs(rows.size(), num_log_probs);
  std::vector<int32_t> lengths, num_cut_bytes;
  std::vector<float> cum_log_probs;
  for (size_t i = 0; i < rows.size(); ++i) {
    ids.write(i, 0, prompt);
    ids.write(i, prompt.size(), rows[i].tokens);
    log_probs.write(i, 0, rows[i].log_probs);
    lengths.push_back(static_cast<int32_t>(prompt.size() + rows[i].tokens.size()));
    cum_log_probs.push_back(rows[i].cum_log_prob);
    num_cut_bytes.push_back(rows[i].num_cut_bytes);
  }
  add<int32_t>(response, "output_ids", {num_rows, static_cast<int64_t>(num_tokens)}, ids.values());
  add<int32_t>(response, "sequence_length", {num_rows}, lengths);
  add<int32_t>(response, "num_cut_bytes", {num_rows}, num_cut_bytes);
  if (format_.return_log_probs) {
    add<float>(response, "output_log_probs", {num_rows, static_cast<int64_t>(num_log_probs)}, log_probs.values());
    add<float>(response, "cum_log_probs", {num_rows}, cum_log_probs);
  } else if (format_.fills_unasked) {
    const auto num_zeros = static_cast<int64_t>(std::max<size_t>(num_tokens - prompt.size(), 1));
    add<float>(response, "output_log_probs", {num_rows, num_zeros}, std::vector<float>(num_rows * num_zeros));
    add<float>(response, "cum_log_probs", {num_rows}, std::vector<float>(num_rows));
  }
}

void ResponseWriter::add_logits(TRITONBACKEND_Response* response, const char* name, std::vector<int64_t> shape,
                                std::span<const float> logits) const {
  if (format_.logits_datatype == TRITONSERVER_TYPE_FP32) return add<float>(response, name, std::move(shape), logits);
  if (!outputs_.contains(name)) return;
  const std::vector<_Float16> converted(logits.begin(), logits.end());
  add<_Float16>(response, name, std::move(shape), converted);
}

bool ResponseWriter::announces() const { return outputs_.size() == 1 && outputs_.contains(kGenerationId); }

void ResponseWriter::write_announcement(TRITONBACKEND_Response* response, uint64_t generation_id) const {
  add_scalar<uint64_t>(response, kGenerationId, generation_id);
}

ResponseWriter ResponseWriter::for_outputs(const std::vector<std::string>& outputs) const { return {outputs, format_}; }

}  // namespace inflight::triton
