#include "triton/scheduling_parameters.h"

#include <algorithm>

namespace inflight::triton {
namespace {

constexpr int32_t kDefaultMaxDraftTokens = 8;
constexpr const char* kMaxDraftTokens = "prompt_lookup_max_draft_tokens";
constexpr const char* kMaxNgram = "prompt_lookup_max_ngram";

bool is_one_of(const std::string& value, std::initializer_list<const char*> values) {
  return std::find(values.begin(), values.end(), value) != values.end();
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
                "\", which this version does not support; prompt_lookup needs no model for its drafts");
  }
  parameters.refuse("decoding_mode", "left empty, top_k, top_p, top_k_top_p, beam_search, lookahead or prompt_lookup");
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
    parameters.refuse("batch_scheduler_policy", "guaranteed_no_evict, max_utilization or static_batch");
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

}  // namespace inflight::triton
