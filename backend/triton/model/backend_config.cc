#include "triton/model/backend_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "common/error.h"
#include "common/logging.h"
#include "triton/model/parameters.h"
#include "triton/model/scheduling_parameters.h"
#include "triton/model/unserved_parameters.h"

namespace inflight::triton {
namespace {

namespace fs = std::filesystem;

void require_directory(const std::string& name, const std::string& value, const fs::path& file) {
  if (fs::is_directory(value)) return;
  throw_error(ErrorCode::kNotFound, file.string(), ": parameter ", name, " is \"", value,
              "\", which is not a directory; give the engine directory that `inflight build` wrote");
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
  require_directory(name, *value, file);
  return *value;
}

fs::path draft_engine_directory(const Parameters& parameters, const fs::path& file) {
  const auto value = parameters.text(kDraftEngineDir);
  if (value) require_directory(kDraftEngineDir, *value, file);
  return value.value_or("");
}

// Version 0.6.1 calls it max_kv_cache_length.
std::vector<int32_t> attention_windows(const Parameters& parameters) {
  const char* const name =
      parameters.text("max_attention_window_size") ? "max_attention_window_size" : "max_kv_cache_length";
  std::vector<int32_t> windows;
  std::istringstream list(parameters.text(name).value_or(""));
  for (std::string value; std::getline(list, value, ',');) {
    value.erase(0, value.find_first_not_of(' '));
    value.erase(value.find_last_not_of(' ') + 1);
    windows.push_back(parameters.parse_number<int32_t>(name, value));
  }
  return windows;
}

std::chrono::milliseconds period(const Parameters& parameters, const std::string& name,
                                 std::chrono::milliseconds otherwise) {
  return std::chrono::milliseconds(parameters.at_least<int64_t>(1, name).value_or(otherwise.count()));
}

// Where the model configuration gives no type, there is no output of it either.
TRITONSERVER_DataType logits_datatype(const nlohmann::json& document, const fs::path& file) {
  TRITONSERVER_DataType datatype = TRITONSERVER_TYPE_FP32;
  for (const auto& output : document.value("output", nlohmann::json::array())) {
    const std::string name = output.value("name", "");
    if (name != "context_logits" && name != "generation_logits") continue;
    const std::string type = output.value("data_type", "");
    if (type != "TYPE_FP32" && type != "TYPE_FP16") {
      throw_error(ErrorCode::kUnsupported, file.string(), ": output ", name, " has data_type ", type,
                  "; logits_datatype must be TYPE_FP32 or TYPE_FP16");
    }
    datatype = type == "TYPE_FP32" ? TRITONSERVER_TYPE_FP32 : TRITONSERVER_TYPE_FP16;
  }
  return datatype;
}

bool has_tensor(const nlohmann::json& document, const char* direction, const std::string& name) {
  const auto tensors = document.value(direction, nlohmann::json::array());
  return std::ranges::any_of(tensors, [&](const auto& tensor) { return tensor.value("name", "") == name; });
}

// The output sequence_index came when responses without what was not asked for did, between 0.13 and 0.16.
bool fills_unasked_outputs(const nlohmann::json& document, const Parameters& parameters) {
  const bool is_old = has_tensor(document, "input", "input_ids") && !has_tensor(document, "output", "sequence_index");
  return parameters.boolean("fill_unasked_outputs").value_or(is_old);
}

// Beside the engine's config.json, if `inflight build` found one in the checkpoint; else as upstream's newer versions
// give it. Guided decoding and stop texts need one.
fs::path tokenizer_directory(const fs::path& engine_dir, const Parameters& parameters) {
  const fs::path given = parameters.text("tokenizer_dir").value_or("");
  const fs::path directory = engine_dir / "tokenizer";
  return fs::is_directory(directory) ? directory : given;
}

// Ours is a parameter; upstream's stands in the dynamic batcher's policy.
int32_t queue_size(const nlohmann::json& document, const Parameters& parameters) {
  if (const auto size = parameters.at_least(0, "max_queue_size")) return *size;
  const auto dynamic_batching = document.value("dynamic_batching", nlohmann::json::object());
  const auto policy = dynamic_batching.value("default_queue_policy", nlohmann::json::object());
  const int32_t size = policy.value("max_queue_size", 0);
  return size > 0 ? size : kDefaultMaxQueueSize;
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

BackendConfig parse_backend_config(std::string_view json, const fs::path& model_directory) {
  const fs::path file = model_directory / "config.pbtxt";
  const auto document = nlohmann::json::parse(json);
  const Parameters parameters(document, file);
  check_instances(document, file);
  refuse_unserved(parameters);

  BackendConfig config;
  config.file = file;
  config.engine_dir = engine_directory(parameters, file);
  config.draft_engine_dir = draft_engine_directory(parameters, file);
  config.max_batch_size = document.value("max_batch_size", 0);
  config.decoupled = document.value("model_transaction_policy", nlohmann::json::object()).value("decoupled", false);
  config.exclude_input_in_output = parameters.boolean("exclude_input_in_output").value_or(false);
  config.skip_special_tokens = parameters.boolean("skip_special_tokens").value_or(true);
  config.max_beam_width = parameters.at_least(1, "max_beam_width");
  config.logits_datatype = logits_datatype(document, file);
  config.fills_unasked_outputs = fills_unasked_outputs(document, parameters);
  config.cancellation_check_period =
      period(parameters, "cancellation_check_period_ms", config.cancellation_check_period);
  config.stats_check_period = period(parameters, "stats_check_period_ms", config.stats_check_period);
  config.iter_stats_max_iterations =
      parameters.at_least(0, "iter_stats_max_iterations").value_or(config.iter_stats_max_iterations);

  config.engine.max_tokens_in_kv_cache = parameters.number<int64_t>("max_tokens_in_paged_kv_cache");
  config.engine.kv_cache_host_bytes = parameters.at_least<int64_t>(0, "kv_cache_host_memory_bytes").value_or(0);
  config.engine.max_attention_windows = attention_windows(parameters);
  config.engine.sink_tokens = parameters.at_least(0, "sink_token_length").value_or(0);

  config.batch_manager.max_queue_size = queue_size(document, parameters);
  config.batch_manager.enable_chunked_context = parameters.boolean("enable_chunked_context").value_or(true);
  config.batch_manager.max_responses_per_second =
      parameters.at_least(0, "max_responses_per_second").value_or(kDefaultMaxResponsesPerSecond);
  config.batch_manager.scheduler_policy = scheduler_policy(parameters);
  config.batch_manager.enable_kv_cache_reuse = parameters.boolean("enable_kv_cache_reuse").value_or(true);
  config.batch_manager.prompt_lookup = prompt_lookup_options(parameters);
  config.batch_manager.draft_model = draft_model_options(parameters);
  auto& [max_words, max_words_length] = config.batch_manager.word_limits;
  max_words = parameters.at_least(0, "max_words").value_or(max_words);
  max_words_length = parameters.at_least(0, "max_words_length").value_or(max_words_length);
  config.batch_manager.tokenizer_dir = tokenizer_directory(config.engine_dir, parameters);
  warn_of_unknown_parameters(parameters, file);
  return config;
}

void check_against_engine(const BackendConfig& config, const EngineInfo& engine) {
  const std::string engine_file = (config.engine_dir / "config.json").string();
  if (config.max_beam_width.value_or(1) > engine.max_beam_width) {
    throw_error(ErrorCode::kInvalidArgument, config.file.string(), ": parameter max_beam_width is ",
                *config.max_beam_width, ", but ", engine_file, " was built for ", engine.max_beam_width,
                ": lower max_beam_width or rebuild with a larger --max-beam-width");
  }
}

}  // namespace inflight::triton
