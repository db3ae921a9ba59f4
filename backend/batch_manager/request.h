#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "common/error.h"
#include "engine/sampling_config.h"

namespace inflight {

using RequestId = uint64_t;

enum class FinishReason {
  kNone,       // not finished
  kEndId,      // an end id was sampled; it is not part of the tokens
  kStopWords,  // a stop word was completed; its tokens are part of the tokens, as in TensorRT-LLM
  kLength,     // max_new_tokens were generated
  kCancelled,
};

// One prompt and how to continue it. Everything is checked by BatchManager::submit.
struct Request {
  std::vector<int32_t> input_ids;  // 1 .. max_seq_len - 1 tokens, each in [0, vocab_size)
  int32_t max_new_tokens = 0;      // > 0; input_ids + max_new_tokens <= max_seq_len
  SamplingConfig sampling;         // empty end_ids → the engine's own; {-1} → none
  std::vector<std::vector<int32_t>> stop_words;  // token sequences that end the generation
  bool streaming = false;          // false: one response with all tokens, at the end
  // Asked before every step; true cancels the request. May be empty. Called from the loop thread.
  std::function<bool()> is_cancelled;
};

// Tokens generated since the last response of this request. Exactly one response of a request is final.
struct Response {
  std::vector<int32_t> tokens;
  std::vector<float> log_probs;  // parallel to tokens, when asked for
  float cum_log_prob = 0.0f;     // over all generated tokens up to here
  // Up to kPrecedingTokens generated tokens before `tokens`: what a stateless detokenizer needs to go
  // on in the middle of a word or a character. Empty in the first response.
  std::vector<int32_t> preceding_tokens;
  int32_t kv_cache_blocks = 0;  // that the sequence has been given up to here
  bool is_final = false;
  FinishReason finish_reason = FinishReason::kNone;
  std::optional<Error> error;  // set only in a final response
};

inline constexpr size_t kPrecedingTokens = 16;

// Called from the delivery thread, in order for one request; must not throw.
using ResponseCallback = std::function<void(RequestId, const Response&)>;

}  // namespace inflight
