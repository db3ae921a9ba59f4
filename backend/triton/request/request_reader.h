#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "batch_manager/request.h"
#include "engine/engine.h"
#include "triton/model/backend_config.h"
#include "triton/triton_api.h"

namespace inflight::triton {

// One Triton request: a batch of sequences, nearly always of one.
struct InferenceRequest {
  std::string id;     // the client's, may be empty
  bool stop = false;  // cancels the running requests with this id; there are no sequences then
  std::optional<uint64_t> fetched_generation;  // fetches one of its responses; there are no sequences then
  std::vector<Request> sequences;
  bool exclude_input_in_output = false;  // of non-streamed responses; streamed ones never hold the prompt
  bool return_kv_cache_reuse_stats = false;
  bool return_perf_metrics = false;  // those statistics, and times and drafts
  bool return_num_input_tokens = false;
  bool return_num_output_tokens = false;
  std::vector<std::string> outputs;      // names the client asks for
};

// Reads everything, so that Triton's request can be released. Throws kInvalidArgument naming the tensor, what it
// holds and what it must hold; kUnsupported for what this version does not serve.
InferenceRequest read_request(TRITONBACKEND_Request* request, const BackendConfig& config, const EngineInfo& engine);

}  // namespace inflight::triton
