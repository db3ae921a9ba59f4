#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "engine/bad_words.h"

namespace inflight {

// Of SamplingConfig::num_top_log_probs, as vLLM's default: each generated token carries that many.
inline constexpr int32_t kMaxTopLogProbs = 20;

// How a sequence's next tokens are chosen. The defaults are greedy decoding.
//
// Order of operations, as in vLLM: embedding bias; repetition, presence and frequency penalties; bad words, tokens
// outside the slice's mask and, until min_length, end ids are masked; temperature; min-p; top-k; top-p; one draw.
struct SamplingConfig {
  // TensorRT-LLM's rules for what is left out: top_k 0 and top_p 0 → greedy; top_k k and top_p 0 →
  // top-k alone; top_k 0 and top_p p → top-p over the whole vocabulary; top_k 1 → greedy. The same holds for min_p
  // without the other two: min-p over the whole vocabulary.
  int32_t top_k = 0;   // 0 .. vocab_size
  float top_p = 0.0f;  // [0, 1]
  float min_p = 0.0f;  // [0, 1]; drops tokens less likely than this share of the most likely one (arXiv:2407.01082)
  float temperature = 1.0f;  // >= 0; 0 → greedy
  uint64_t random_seed = 0;  // the same seed, prompt and settings give the same tokens in any batch

  // Factual nucleus sampling (arXiv:2206.04624): after each token top_p becomes max(top_p_min, top_p * top_p_decay),
  // or its first value again after top_p_reset_id.
  float top_p_decay = 1.0f;  // (0, 1]
  float top_p_min = 1e-6f;   // (0, 1]
  int32_t top_p_reset_id = -1;  // -1: none

  float repetition_penalty = 1.0f;  // > 0; over prompt and generated tokens (CTRL, arXiv:1909.05858)
  float presence_penalty = 0.0f;    // over generated tokens, as OpenAI and vLLM define it
  float frequency_penalty = 0.0f;   // over generated tokens

  int32_t min_length = 0;         // no end id before this many generated tokens
  std::vector<int32_t> end_ids = {};   // several are allowed; masked until min_length
  BadWords bad_words = {};
  std::shared_ptr<const std::vector<float>> embedding_bias = nullptr;  // [vocab_size], added to the logits; or null
  bool return_log_probs = false;  // log-softmax of the model's raw logits at the chosen token
  // With return_log_probs: also the chosen token's rank, and the log-probs of this many of the most likely tokens.
  std::optional<int32_t> num_top_log_probs = std::nullopt;  // 0 .. kMaxTopLogProbs; not with num_candidates

  // > 0: sample nothing; return the best candidates of a beam, with the log-softmax of the raw logits, to which bias,
  // penalties and masks are applied (as transformers' beam search does), for log_prob. Not with drafts.
  int32_t num_candidates = 0;
};

}  // namespace inflight
