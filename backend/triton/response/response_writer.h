#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <unordered_set>
#include <vector>

#include "batch_manager/request.h"
#include "triton/handles.h"

namespace inflight::triton {

// How one request's responses are written, besides which outputs it wants.
struct ResponseFormat {
  bool has_batch_dimension = true;
  bool return_log_probs = false;
  bool return_generation_logits = false;
  bool return_kv_cache_reuse_stats = false;
  bool return_perf_metrics = false;
  bool return_num_input_tokens = false;
  bool return_num_output_tokens = false;
  bool fills_unasked = false;  // log-probs and logits that are not asked for are zeros, else left out
  TRITONSERVER_DataType logits_datatype = TRITONSERVER_TYPE_FP32;  // or FP16
  int32_t vocab_size = 0;
};

// What the responses of one sequence have of its prompt.
struct PromptOutput {
  std::vector<int32_t> tokens;  // that output_ids starts with
  int32_t num_tokens = 0;       // of the prompt
};

// Turns the responses of one request's sequences into output tensors. A response has one sequence, or the beams of one:
// for r of them, of at most n tokens, output_ids is [1, r, n], padded with -1, sequence_length [1, r],
// output_log_probs [1, r, n], padded with -1, cum_log_probs and num_cut_bytes [1, r]. For p prompt tokens and n
// generated ones, context_logits is [1, p, vocab_size], and generation_logits
// [1, 1, n, vocab_size]; as zeros they are [1, 1, 1] and [1, 1, 1, 1]. preceding_ids is [1, 16], and all others are
// [1, 1]. Where the model has max_batch_size 0, all come without the leading dimension.
class ResponseWriter {
 public:
  ResponseWriter(const std::vector<std::string>& outputs, const ResponseFormat& format);

  // Adds the outputs that the client asked for.
  void write(TRITONBACKEND_Response* response, const Response& content, const PromptOutput& prompt,
             int32_t batch_index) const;

  // The client asks for nothing but generation_id: it fetches the responses, each written with its own outputs.
  bool announces() const;
  void write_announcement(TRITONBACKEND_Response* response, uint64_t generation_id) const;
  ResponseWriter for_outputs(const std::vector<std::string>& outputs) const;

 private:
  void write_sequences(TRITONBACKEND_Response* response, const Response& content,
                       std::span<const int32_t> prompt) const;
  void write_logits(TRITONBACKEND_Response* response, const Response& content) const;
  void write_counts(TRITONBACKEND_Response* response, const Response& content, int32_t num_input_tokens) const;
  void write_perf_metrics(TRITONBACKEND_Response* response, const PerfMetrics& metrics) const;
  void add_logits(TRITONBACKEND_Response* response, const char* name, std::vector<int64_t> shape,
                  std::span<const float> logits) const;

  template <class T>
  void add(TRITONBACKEND_Response* response, const char* name, std::vector<int64_t> shape,
           std::span<const T> values) const;
  template <class T>
  void add_scalar(TRITONBACKEND_Response* response, const char* name, T value) const {
    add<T>(response, name, {1}, {&value, 1});
  }

  const std::unordered_set<std::string> outputs_;
  const ResponseFormat format_;
};

}  // namespace inflight::triton
