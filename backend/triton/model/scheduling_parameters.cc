#include "triton/model/scheduling_parameters.h"

#include <algorithm>

#include "common/logging.h"

namespace inflight::triton {
namespace {

constexpr int32_t kDefaultMaxDraftTokens = 8;
constexpr const char* kMaxDraftTokens = "prompt_lookup_max_draft_tokens";
constexpr const char* kMaxNgram = "prompt_lookup_max_ngram";
constexpr const char* kNumDraftTokens = "num_draft_tokens";

bool is_one_of(const std::string& value, std::initializer_list<const char*> values) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

// As TensorRT-LLM does with what changes only how fast the answers come.
void warn_of_default(const Parameters& parameters, const char* name, const char* known) {
  log_warning(parameters.file().string(), ": parameter ", name, " is \"", parameters.raw(name),
              "\", which is unknown: the default is taken; there are ", known);
}

bool is_static_type(const Parameters& parameters) {
  const std::string type = parameters.lower_case_text("gpt_model_type").value_or("inflight_fused_batching");
  if (type == "v1") return true;
  if (is_one_of(type, {"inflight_fused_batching", "inflight_batching"})) return false;
  parameters.refuse("gpt_model_type", "inflight_fused_batching, inflight_batching or v1");
}

bool looks_drafts_up(const Parameters& parameters) {
  const std::string mode = parameters.lower_case_text("decoding_mode").value_or("");
  if (is_one_of(mode, {"prompt_lookup", "lookahead"})) return true;
  if (is_one_of(mode, {"", "top_k", "top_p", "top_k_top_p", "beam_search"})) return false;
  if (is_one_of(mode, {"medusa", "redrafter", "explicit_draft_tokens", "eagle"})) {
    throw_error(ErrorCode::kUnsupported, parameters.file().string(), ": parameter decoding_mode is \"", mode,
                "\", which this version does not support; set draft_engine_dir for a draft model, or prompt_lookup, ",
                "which needs none");
  }
  warn_of_default(parameters, "decoding_mode", "top_k, top_p, top_k_top_p, beam_search, lookahead or prompt_lookup");
  return false;
}

}  // namespace

SchedulerPolicy scheduler_policy(const Parameters& parameters) {
  const std::string policy = parameters.lower_case_text("batch_scheduler_policy").value_or("guaranteed_no_evict");
  const bool is_static = is_static_type(parameters);
  if (policy == "static_batch") return SchedulerPolicy::kStaticBatch;
  if (policy == "guaranteed_no_evict") {
    return is_static ? SchedulerPolicy::kStaticBatch : SchedulerPolicy::kGuaranteedNoEvict;
  }
  if (policy != "max_utilization") {
    warn_of_default(parameters, "batch_scheduler_policy", "guaranteed_no_evict, max_utilization or static_batch");
    return is_static ? SchedulerPolicy::kStaticBatch : SchedulerPolicy::kGuaranteedNoEvict;
  }
  if (is_static)
    parameters.refuse("batch_scheduler_policy", "guaranteed_no_evict or static_batch with gpt_model_type v1");
  return SchedulerPolicy::kMaxUtilization;
}

PromptLookupOptions prompt_lookup_options(const Parameters& parameters) {
  const bool enabled = looks_drafts_up(parameters);
  for (const char* name : {kMaxDraftTokens, kMaxNgram}) {
    if (!enabled && parameters.text(name)) parameters.refuse(name, "left empty, unless decoding_mode is prompt_lookup");
  }
  PromptLookupOptions options;
  if (enabled) {
    options.max_draft_tokens = parameters.at_least(1, kMaxDraftTokens).value_or(kDefaultMaxDraftTokens);
    options.max_ngram = parameters.at_least(1, kMaxNgram).value_or(options.max_ngram);
  }
  return options;
}

DraftModelOptions draft_model_options(const Parameters& parameters) {
  DraftModelOptions options;
  const bool has_draft_model = parameters.text(kDraftEngineDir).has_value();
  if (!has_draft_model && parameters.text(kNumDraftTokens)) {
    parameters.refuse(kNumDraftTokens, "left empty, unless draft_engine_dir gives a draft model");
  }
  if (has_draft_model && looks_drafts_up(parameters)) {
    parameters.refuse(kDraftEngineDir, concat("left empty with decoding_mode ", parameters.raw("decoding_mode"),
                                              ": drafts come from one of them"));
  }
  options.num_draft_tokens = parameters.at_least(1, kNumDraftTokens).value_or(options.num_draft_tokens);
  return options;
}

}  // namespace inflight::triton
