#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

#include "batch_manager/batch_manager.h"
#include "engine/engine.h"
#include "triton/triton_api.h"

namespace inflight::triton {

// Responses a second over all requests, unless the parameter max_responses_per_second says otherwise: what one instance
// of the Python postprocessing keeps up with on two busy cores, so that responses do not queue before it.
inline constexpr int32_t kDefaultMaxResponsesPerSecond = 1000;
inline constexpr int32_t kDefaultMaxQueueSize = 4096;  // minutes of work for any engine; each may hold megabytes

// What config.pbtxt says, checked and typed.
struct BackendConfig {
  std::filesystem::path file;  // config.pbtxt, for messages
  std::filesystem::path engine_dir;
  std::filesystem::path draft_engine_dir;  // of batch_manager.draft_model; empty: none
  int32_t max_batch_size = 0;  // 0 → tensors have no batch dimension
  bool decoupled = false;
  bool exclude_input_in_output = false;
  // TensorRT-LLM up to 0.13 wrote zeros for log-probs and logits that were not asked for: ensembles of 0.6 to 0.8 need
  // them, and clients read them.
  bool fills_unasked_outputs = false;
  bool skip_special_tokens = true;  // as the model that makes text of the tokens does
  std::chrono::milliseconds cancellation_check_period{100};  // of requests that wait
  std::optional<int32_t> max_beam_width;  // none: the engine's
  TRITONSERVER_DataType logits_datatype = TRITONSERVER_TYPE_FP32;  // of context_logits and generation_logits; or FP16
  std::chrono::milliseconds stats_check_period{50};  // of the metrics and the log of steps
  int32_t iter_stats_max_iterations = 1000;  // steps kept for that long; 0: none are shown
  EngineOptions engine;
  BatchManagerOptions batch_manager;  // without the engine of its draft model
};

// `json` is the model configuration as Triton serializes it; `model_directory` holds config.pbtxt.
//
// Parameters have the names and values of TensorRT-LLM's Triton backend. An empty value or an unfilled
// "${variable}" is the default. Throws Error that names the file, the parameter and its value for a value that
// cannot be read, a required one that is missing, and one that this version does not serve.
BackendConfig parse_backend_config(std::string_view json, const std::filesystem::path& model_directory);

// Throws Error naming both files and both values where the configuration asks for more than the engine has.
void check_against_engine(const BackendConfig& config, const EngineInfo& engine);

}  // namespace inflight::triton
