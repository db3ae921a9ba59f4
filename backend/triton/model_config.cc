#include "triton/model_config.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "common/error.h"
#include "common/logging.h"
#include "triton/parameters.h"

namespace inflight::triton {
namespace {

namespace fs = std::filesystem;

// Parameters of TensorRT-LLM that this version serves only in one way: a value that asks for anything else is refused.
struct FixedParameter {
  const char* name;
  std::vector<std::string> accepted;  // besides an absent one; compared in lower case
};

const FixedParameter kFixedParameters[] = {
    {"gpt_model_type", {"inflight_fused_batching", "inflight_batching"}},
    {"batch_scheduler_policy", {"guaranteed_no_evict"}},
    {"max_beam_width", {"1"}},
    {"sink_token_length", {"0"}},
    {"kv_cache_host_memory_bytes", {"0"}},
    {"enable_kv_cache_reuse", {"false", "0"}},
    {"decoding_mode", {"top_k", "top_p", "top_k_top_p"}},
    {"participant_ids", {"0"}},
    {"encoder_model_path", {}},
    {"encoder_input_features_data_type", {"type_fp16"}},
    {"cross_kv_cache_fraction", {}},
    {"medusa_choices", {}},
    {"eagle_choices", {}},
    {"lookahead_window_size", {}},
    {"lookahead_ngram_size", {}},
    {"lookahead_verification_set_size", {}},
    {"guided_decoding_backend", {}},
    {"speculative_decoding_fast_logits", {"false", "0"}},
};

// Parameters that change no result: they size GPU memory, choose GPU kernels, set reporting periods, or say how long
// Triton gathers requests (never: a request that arrives joins the next step).
const char* const kIgnoredParameters[] = {
    "kv_cache_free_gpu_mem_fraction",
    "kv_cache_onboard_blocks",
    "gpu_device_ids",
    "gpu_weights_percent",
    "multi_block_mode",
    "enable_context_fmha_fp32_acc",
    "cuda_graph_mode",
    "cuda_graph_cache_size",
    "normalize_log_probs",
    "request_stats_max_iterations",
    "recv_poll_period_ms",
    "enable_trt_overlap",
    "lora_cache_optimal_adapter_size",
    "lora_cache_max_adapter_size",
    "lora_cache_gpu_memory_fraction",
    "lora_cache_host_memory_bytes",
    "max_queue_delay_microseconds",
};

std::string lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

std::string alternatives(const std::vector<std::string>& accepted) {
  std::string text = "left empty";
  for (const auto& value : accepted) text += concat(" or \"", value, "\"");
  return text;
}

void check_fixed_parameters(const Parameters& parameters, const fs::path& file) {
  for (const auto& [name, accepted] : kFixedParameters) {
    const auto value = parameters.text(name);
    if (!value || std::find(accepted.begin(), accepted.end(), lower_case(*value)) != accepted.end()) continue;
    throw_error(ErrorCode::kUnsupported, file.string(), ": parameter ", name, " is \"", *value,
                "\", which this version does not support; it must be ", alternatives(accepted));
  }
}

void log_ignored_parameters(const Parameters& parameters, const fs::path& file) {
  std::string ignored;
  for (const char* name : kIgnoredParameters) {
    if (const auto value = parameters.text(name)) ignored += concat(ignored.empty() ? "" : ", ", name, "=", *value);
  }
  if (!ignored.empty()) log_info(file.string(), ": no effect on this engine: ", ignored);
}

fs::path engine_directory(const Parameters& parameters, const fs::path& file) {
  const char* name = parameters.raw("gpt_model_path").empty() ? "engine_dir" : "gpt_model_path";
  const auto value = parameters.text(name);
  if (!value) {
    const std::string raw = parameters.raw(name);
    throw_error(ErrorCode::kInvalidArgument, file.string(), ": parameter gpt_model_path is ",
                raw.empty() ? "missing" : concat("\"", raw, "\", an unfilled template variable"),
                "; give the engine directory that `inflight build` wrote");
  }
  if (!fs::is_directory(*value)) {
    throw_error(ErrorCode::kNotFound, file.string(), ": parameter ", name, " is \"", *value,
                "\", which is not a directory; give the engine directory that `inflight build` wrote");
  }
  return *value;
}

std::vector<int32_t> attention_windows(const Parameters& parameters) {
  std::vector<int32_t> windows;
  std::istringstream list(parameters.text("max_attention_window_size").value_or(""));
  for (std::string value; std::getline(list, value, ',');) {
    windows.push_back(parameters.parse_number<int32_t>("max_attention_window_size", value));
  }
  return windows;
}

template <class Number>
std::optional<Number> non_negative(const Parameters& parameters, const std::string& name) {
  const auto value = parameters.number<Number>(name);
  if (value && *value < 0) parameters.refuse(name, "0 or more");
  return value;
}

std::chrono::milliseconds period(const Parameters& parameters, const std::string& name,
                                 std::chrono::milliseconds otherwise) {
  const auto value = parameters.number<int32_t>(name);
  if (value && *value < 1) parameters.refuse(name, "1 or more");
  return value ? std::chrono::milliseconds(*value) : otherwise;
}

// Ours is a parameter; upstream's stands in the dynamic batcher's policy.
int32_t queue_size(const nlohmann::json& document, const Parameters& parameters) {
  if (const auto size = non_negative<int32_t>(parameters, "max_queue_size")) return *size;
  const auto dynamic_batching = document.value("dynamic_batching", nlohmann::json::object());
  const auto policy = dynamic_batching.value("default_queue_policy", nlohmann::json::object());
  return policy.value("max_queue_size", 0);
}

void warn_of_unknown_parameters(const Parameters& parameters, const fs::path& file) {
  for (const auto& name : parameters.never_read()) {
    log_warning(file.string(), ": parameter ", name, " is not known to this backend and has no effect");
  }
}

void check_instances(const nlohmann::json& config, const fs::path& file) {
  int instances = 0;
  for (const auto& group : config.value("instance_group", nlohmann::json::array())) {
    instances += group.value("count", 1) * std::max<int>(1, group.value("gpus", nlohmann::json::array()).size());
  }
  if (instances > 1) {
    throw_error(
        ErrorCode::kUnsupported, file.string(), ": instance_group asks for ", instances,
        " instances; one instance with in-flight batching serves all requests: set count: 1 and kind: KIND_CPU");
  }
}

}  // namespace

ModelConfig parse_model_config(std::string_view json, const fs::path& model_directory) {
  const fs::path file = model_directory / "config.pbtxt";
  const auto document = nlohmann::json::parse(json);
  const Parameters parameters(document, file);
  check_instances(document, file);
  check_fixed_parameters(parameters, file);
  log_ignored_parameters(parameters, file);

  ModelConfig config;
  config.file = file;
  config.engine_dir = engine_directory(parameters, file);
  config.max_batch_size = document.value("max_batch_size", 0);
  config.decoupled = document.value("model_transaction_policy", nlohmann::json::object()).value("decoupled", false);
  config.exclude_input_in_output = parameters.boolean("exclude_input_in_output").value_or(false);
  config.stats_check_period = period(parameters, "stats_check_period_ms", config.stats_check_period);
  config.iter_stats_max_iterations =
      non_negative<int32_t>(parameters, "iter_stats_max_iterations").value_or(config.iter_stats_max_iterations);
  config.cancellation_check_period = period(parameters, "cancellation_check_period_ms", config.cancellation_check_period);
  config.max_attention_window_sizes = attention_windows(parameters);
  config.engine.max_tokens_in_kv_cache = parameters.number<int64_t>("max_tokens_in_paged_kv_cache");
  config.batch_manager.max_queue_size = queue_size(document, parameters);
  config.batch_manager.enable_chunked_context = parameters.boolean("enable_chunked_context").value_or(true);
  config.batch_manager.max_responses_per_second =
      non_negative<int32_t>(parameters, "max_responses_per_second").value_or(kDefaultMaxResponsesPerSecond);
  warn_of_unknown_parameters(parameters, file);
  return config;
}

void check_against_engine(const ModelConfig& config, const EngineInfo& engine) {
  const std::string engine_file = (config.engine_dir / "config.json").string();
  if (config.max_batch_size > engine.max_batch_size) {
    throw_error(ErrorCode::kInvalidArgument, config.file.string(), ": max_batch_size is ", config.max_batch_size,
                ", but ", engine_file, " was built for ", engine.max_batch_size,
                ": lower triton_max_batch_size or rebuild with a larger --max-batch-size");
  }
  for (const int32_t window : config.max_attention_window_sizes) {
    if (window < engine.max_seq_len) {
      throw_error(ErrorCode::kUnsupported, config.file.string(), ": parameter max_attention_window_size holds ", window,
                  ", below max_seq_len ", engine.max_seq_len, " of ", engine_file,
                  ", which this version does not support: leave it empty");
    }
  }
}

}  // namespace inflight::triton
