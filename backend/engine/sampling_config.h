#pragma once

#include <cstdint>
#include <vector>

namespace inflight {

// How a sequence's next tokens are chosen. The defaults are greedy decoding.
//
// Order of operations, as in vLLM: repetition, presence and frequency penalties; bad words and, until
// min_length, end ids are masked; temperature; top-k; top-p; one draw.
struct SamplingConfig {
  // TensorRT-LLM's rules for what is left out: top_k 0 and top_p 0 → greedy; top_k k and top_p 0 →
  // top-k alone; top_k 0 and top_p p → top-p over the whole vocabulary; top_k 1 → greedy.
  int32_t top_k = 0;   // 0 .. vocab_size
  float top_p = 0.0f;  // [0, 1]
  float temperature = 1.0f;  // >= 0; 0 → greedy
  uint64_t random_seed = 0;  // the same seed, prompt and settings give the same tokens in any batch

  float repetition_penalty = 1.0f;  // > 0; over prompt and generated tokens (CTRL, arXiv:1909.05858)
  float presence_penalty = 0.0f;    // over generated tokens, as OpenAI and vLLM define it
  float frequency_penalty = 0.0f;   // over generated tokens

  int32_t min_length = 0;         // no end id before this many generated tokens
  std::vector<int32_t> end_ids = {};   // several are allowed; masked until min_length
  std::vector<std::vector<int32_t>> bad_words = {};  // token sequences that must never be completed
  bool return_log_probs = false;  // log-softmax of the model's raw logits at the chosen token
};

}  // namespace inflight
