#pragma once

#include "batch_manager/batch_manager.h"
#include "triton/model/parameters.h"

namespace inflight::triton {

// gpt_model_type and batch_scheduler_policy: TensorRT-LLM's static batching is the type v1; we also take it for a
// policy.
SchedulerPolicy scheduler_policy(const Parameters& parameters);

// decoding_mode, which alone has drafts made: TensorRT-LLM's lookahead, or prompt_lookup; then
// prompt_lookup_max_draft_tokens and prompt_lookup_max_ngram say how many. The modes of sampling and of beam search
// restrict nothing: each request says what it wants.
PromptLookupOptions prompt_lookup_options(const Parameters& parameters);

inline constexpr const char* kDraftEngineDir = "draft_engine_dir";

// num_draft_tokens of the draft model that draft_engine_dir gives, which has yet to be loaded.
DraftModelOptions draft_model_options(const Parameters& parameters);

// All throw naming the file, the parameter and its value: kInvalidArgument for one that is unknown or does not go with
// another, kUnsupported for one that needs another kind of model for drafts.

}  // namespace inflight::triton
