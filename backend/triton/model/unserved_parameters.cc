#include "triton/model/unserved_parameters.h"

#include <algorithm>

#include "common/logging.h"

namespace inflight::triton {
namespace {

struct FixedParameter {
  const char* name;
  std::vector<std::string> accepted;  // besides an absent one; compared in lower case
};

const FixedParameter kFixedParameters[] = {
    {"participant_ids", {"0"}},
    {"num_nodes", {"1"}},
    {"lora_prefetch_dir", {}},
    {"encoder_model_path", {}},
    {"encoder_input_features_data_type", {"type_fp16"}},
    {"cross_kv_cache_fraction", {}},
    {"medusa_choices", {}},
    {"eagle_choices", {}},
    {"guided_decoding_backend", {"xgrammar"}},
    {"speculative_decoding_fast_logits", {"false", "0"}},
};

// They change no result: they size GPU memory, choose GPU kernels, say how drafts are found or what a tokenizer is that
// the engine has with it, or how long Triton gathers requests (never: a request that arrives joins the next step).
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
    "lookahead_window_size",
    "lookahead_ngram_size",
    "lookahead_verification_set_size",
    "xgrammar_tokenizer_info_path",
    "max_num_sequences",
};

// Every repository of some versions has these: not worth a line in the log.
const char* const kSilentParameters[] = {"FORCE_CPU_ONLY_INPUT_TENSORS", "executor_worker_path", "worker_path"};

// The devices of one instance are separated by commas, those of several by semicolons.
void refuse_instances(const Parameters& parameters) {
  constexpr const char* kName = "gpu_device_ids";
  if (parameters.text(kName).value_or("").find(';') == std::string::npos) return;
  throw_error(ErrorCode::kUnsupported, parameters.file().string(), ": parameter ", kName, " is \"",
              parameters.raw(kName), "\", which asks for several instances; this version runs one, whose in-flight ",
              "batching serves all requests: leave it empty");
}

std::string alternatives(const std::vector<std::string>& accepted) {
  std::string text = "left empty";
  for (const auto& value : accepted) text += concat(" or \"", value, "\"");
  return text;
}

}  // namespace

void refuse_unserved(const Parameters& parameters) {
  for (const auto& [name, accepted] : kFixedParameters) {
    const auto value = parameters.lower_case_text(name);
    if (!value || std::find(accepted.begin(), accepted.end(), *value) != accepted.end()) continue;
    throw_error(ErrorCode::kUnsupported, parameters.file().string(), ": parameter ", name, " is \"",
                parameters.raw(name), "\", which this version does not support; it must be ", alternatives(accepted));
  }
  refuse_instances(parameters);
  for (const char* name : kSilentParameters) parameters.text(name);
  std::string ignored;
  for (const char* name : kIgnoredParameters) {
    if (const auto value = parameters.text(name)) ignored += concat(ignored.empty() ? "" : ", ", name, "=", *value);
  }
  if (!ignored.empty()) log_info(parameters.file().string(), ": no effect on this engine: ", ignored);
}

}  // namespace inflight::triton
