#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <unordered_set>
#include <vector>

#include "batch_manager/request.h"
#include "triton/handles.h"

namespace inflight::triton {

// Turns the responses of one request's sequences into output tensors. Shapes, for n tokens: output_ids [1, 1, n],
// sequence_length [1, 1], output_log_probs [1, 1, n], cum_log_probs [1, 1], preceding_ids [1, 16], all others
// [1, 1]; without the leading batch dimension where the model has max_batch_size 0.
class ResponseWriter {
 public:
  ResponseWriter(const std::vector<std::string>& outputs, bool has_batch_dimension, bool return_log_probs);

  // Adds the outputs that the client asked for. `prompt` comes before the generated tokens in output_ids.
  void write(TRITONBACKEND_Response* response, const Response& content, std::span<const int32_t> prompt,
             int32_t batch_index) const;

  // The client asks for nothing but generation_id: it fetches the responses, each written with its own outputs.
  bool announces() const;
  void write_announcement(TRITONBACKEND_Response* response, uint64_t generation_id) const;
  ResponseWriter for_outputs(const std::vector<std::string>& outputs) const;

 private:
  template <class T>
  void add(TRITONBACKEND_Response* response, const char* name, std::vector<int64_t> shape,
           const std::vector<T>& values) const;

  const std::unordered_set<std::string> outputs_;
  const bool has_batch_dimension_;
  const bool return_log_probs_;
};

}  // namespace inflight::triton
