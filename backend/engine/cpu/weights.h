#pragma once

#include <filesystem>
#include <set>
#include <span>
#include <vector>

#include "common/safetensors.h"
#include "engine/cpu/packed_matrix.h"
#include "engine/model_config.h"

namespace inflight::cpu {

struct LinearWeights {
  PackedMatrix matrix;          // [out, in]
  std::span<const float> bias;  // [out], or empty
};

struct LayerWeights {
  std::span<const float> input_layernorm;  // [hidden]
  LinearWeights qkv;                       // [(heads + 2 kv_heads) head_size, hidden], rows q, k, v
  std::span<const float> q_layernorm;      // [head_size], or empty
  std::span<const float> k_layernorm;      // [head_size], or empty
  LinearWeights dense;                     // [hidden, heads head_size]
  std::span<const float> post_layernorm;   // [hidden]
  LinearWeights gate_up;                   // [2 intermediate, hidden], rows gate, up
  LinearWeights down;                      // [hidden, intermediate]
};

// An engine's rank{r}.safetensors, mapped and used in place. Throws Error naming the file and the tensor
// for one that is missing, that does not have the shape that the config asks for, or that the config does not ask for.
class Weights {
 public:
  Weights(const std::filesystem::path& file, const ModelConfig& config);

  PackedMatrix vocab_embedding;  // [vocab, hidden]
  std::vector<LayerWeights> layers;
  std::span<const float> final_layernorm;  // [hidden]
  PackedMatrix lm_head;                    // [vocab, hidden]; vocab_embedding when tied

 private:
  std::span<const float> vector(const std::string& name, int64_t size);
  PackedMatrix matrix(const std::string& name, int64_t rows, int64_t columns);
  LinearWeights linear(const std::string& name, int64_t rows, int64_t columns, bool has_bias);

  SafetensorsFile file_;
  std::set<std::string> read_;  // names of the tensors that the model is made of
};

}  // namespace inflight::cpu
