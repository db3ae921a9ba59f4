#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/model_config.h"

namespace inflight::cpu {

// Rotary position embeddings (RoFormer, arXiv:2104.09864) with the scalings of Hugging Face
// transformers' modeling_rope_utils, in the same float32 arithmetic.
class RotaryEmbedding {
 public:
  explicit RotaryEmbedding(const ModelConfig& config);

  // cos and sin, each [head_size / 2], by which a token at `position` turns.
  //
  // Dynamic scaling depends on the sequence's length: transformers takes what it sees in one call, so a
  // prompt's tokens get the prompt's length and a generated token its own position + 1. With
  // `prompt_length` given, the result is the same however the prompt is cut into chunks.
  void rotation(int32_t position, int32_t prompt_length, std::span<float> cos, std::span<float> sin) const;

 private:
  std::vector<float> dynamic_frequencies(int32_t sequence_length) const;

  RopeConfig rope_;
  int32_t head_size_;
  int32_t max_position_embeddings_;
  std::vector<float> inverse_frequencies_;  // [head_size / 2]
  float attention_scaling_ = 1.0f;          // factor on cos and sin
};

}  // namespace inflight::cpu
