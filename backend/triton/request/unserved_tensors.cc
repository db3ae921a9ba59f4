#include "triton/request/unserved_tensors.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "common/error.h"
#include "triton/request/unknown_names.h"

namespace inflight::triton {
namespace {

// What request_reader.cc reads.
const std::unordered_set<std::string> kServed = {
    "input_ids",
    "input_lengths",
    "request_output_len",
    "num_return_sequences",
    "draft_input_ids",
    "num_draft_tokens",
    "end_id",
    "stop_words_list",
    "bad_words_list",
    "stop_words",
    "include_stop_str_in_output",
    "embedding_bias",
    "beam_width",
    "temperature",
    "runtime_top_k",
    "runtime_top_p",
    "min_p",
    "runtime_top_p_min",
    "runtime_top_p_decay",
    "runtime_top_p_reset_ids",
    "len_penalty",
    "early_stopping",
    "repetition_penalty",
    "min_length",
    "min_tokens",
    "beam_search_diversity_rate",
    "presence_penalty",
    "frequency_penalty",
    "random_seed",
    "seed",
    "return_log_probs",
    "return_context_logits",
    "return_generation_logits",
    "return_kv_cache_reuse_stats",
    "return_perf_metrics",
    "return_num_input_tokens",
    "return_num_output_tokens",
    "exclude_input_in_output",
    "stop",
    "streaming",
    "prompt_table_extra_ids",
    "retention_token_range_starts",
    "retention_token_range_ends",
    "retention_token_range_priorities",
    "retention_token_range_durations_ms",
    "retention_decode_priority",
    "retention_decode_duration_ms",
    "guided_decoding_guide_type",
    "guided_decoding_guide",
};

// No effect on what is generated, or only on what is refused below.
const std::unordered_set<std::string> kNoEffect = {
    "pad_id",                           // nothing is padded
    "draft_acceptance_threshold",       // a draft token is accepted when it is the one that is sampled
    "lookahead_window_size",            // how drafts are found
    "lookahead_ngram_size",
    "lookahead_verification_set_size",
    "prompt_vocab_size",                // prompt_embedding_table
    "decoder_input_lengths",            // decoder_input_ids
};

// The values at which a tensor asks for nothing, if any besides an empty tensor.
const std::unordered_map<std::string, std::vector<double>> kOff = {
    {"draft_logits", {}},
    {"prompt_embedding_table", {}},
    {"mrope_rotary_cos_sin", {}},
    {"mrope_position_deltas", {}},
    {"lora_task_id", {}},
    {"lora_weights", {}},
    {"lora_config", {}},
    {"no_repeat_ngram_size", {0}},
    {"skip_cross_attn_blocks", {0}},
    {"encoder_input_features", {}},
    {"encoder_output_lengths", {}},
    {"cross_attention_mask", {}},
    {"context_phase_params", {}},
    {"multimodal_embedding", {}},
};

std::vector<double> numbers(const InputTensor& tensor) {
  const auto convert = [](const auto& values) { return std::vector<double>(values.begin(), values.end()); };
  switch (tensor.datatype) {
    case TRITONSERVER_TYPE_BOOL: return convert(tensor.values<bool>());
    case TRITONSERVER_TYPE_INT32: return convert(tensor.values<int32_t>());
    case TRITONSERVER_TYPE_UINT64: return convert(tensor.values<uint64_t>());
    case TRITONSERVER_TYPE_FP32: return convert(tensor.values<float>());
    default:
      throw_error(ErrorCode::kInvalidArgument, tensor.name, " is ", tensor.description(),
                  "; it must be BOOL, INT32, UINT64 or FP32");
  }
}

void refuse_unless_off(const InputTensor& tensor, const std::vector<double>& off) {
  if (tensor.data.empty()) return;
  if (off.empty()) {
    throw_error(ErrorCode::kUnsupported, tensor.name, " is ", tensor.description(),
                "; this version does not support it: leave it out");
  }
  for (const double value : numbers(tensor)) {
    if (std::find(off.begin(), off.end(), value) == off.end()) {
      throw_error(ErrorCode::kUnsupported, tensor.name, " is ", value, "; this version supports only ", off.front());
    }
  }
}

// The preprocessing model sends one pad token a sequence to decoder-only models, as TensorRT-LLM's does.
void refuse_decoder_input(const InputTensor& tensor) {
  tensor.expect<int32_t>();
  if (tensor.shape.empty() || tensor.shape.back() <= 1) return;
  throw_error(ErrorCode::kUnsupported, tensor.name, " is ", tensor.description(),
              "; this model has no encoder: put the whole text into input_ids");
}

}  // namespace

void refuse_unserved(const InputTensors& inputs) {
  for (const auto& [name, tensor] : inputs.all()) {
    if (kServed.contains(name) || kNoEffect.contains(name)) continue;
    if (name == "decoder_input_ids") {
      refuse_decoder_input(tensor);
    } else if (const auto off = kOff.find(name); off != kOff.end()) {
      refuse_unless_off(tensor, off->second);
    } else {
      log_once_unknown("input", name);  // config.pbtxt has it, else Triton would have refused it
    }
  }
}

}  // namespace inflight::triton
