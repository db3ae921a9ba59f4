#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace inflight {

enum class RopeType { kDefault, kLinear, kDynamic, kLlama3, kYarn };

// Rotary position embedding and its scaling; field names and meanings are Hugging Face's (rope_parameters).
// A field that the type does not use keeps its default.
struct RopeConfig {
  RopeType type = RopeType::kDefault;
  double theta = 10000.0;
  double factor = 1.0;                           // linear, dynamic, llama3, yarn
  int64_t original_max_position_embeddings = 0;  // llama3, yarn; absent → max_position_embeddings
  double low_freq_factor = 0.0;                  // llama3
  double high_freq_factor = 0.0;                 // llama3
  double beta_fast = 32.0;                       // yarn, and so all below
  double beta_slow = 1.0;
  std::optional<double> attention_factor = std::nullopt;
  std::optional<double> mscale = std::nullopt;
  std::optional<double> mscale_all_dim = std::nullopt;
  bool truncate = true;
};

// The architecture: pretrained_config of an engine's config.json, config.json of a checkpoint.
struct ModelConfig {
  std::string model_type;  // "llama", "mistral", "qwen2", "qwen3"
  int32_t vocab_size;
  int32_t hidden_size;
  int32_t num_hidden_layers;
  int32_t num_attention_heads;
  int32_t num_key_value_heads;  // divides num_attention_heads
  int32_t head_size;            // even; need not be hidden_size / num_attention_heads
  int32_t intermediate_size;
  int32_t max_position_embeddings;
  float norm_epsilon;
  bool tie_word_embeddings;
  bool qkv_bias;
  bool dense_bias;
  bool mlp_bias;
  bool qk_norm;
  RopeConfig rope;
  std::vector<int32_t> layer_windows;  // [num_hidden_layers] attention window in tokens; 0 = full attention
  std::vector<int32_t> end_ids;
  int32_t pad_id;

  int32_t attention_size() const { return num_attention_heads * head_size; }
  int32_t qkv_size() const { return (num_attention_heads + 2 * num_key_value_heads) * head_size; }
};

// What `inflight build` fixed.
struct BuildConfig {
  std::string device;  // "cpu"
  int32_t max_batch_size;
  int32_t max_num_tokens;
  int32_t max_seq_len;
  int32_t tokens_per_block;  // a power of two
  int64_t kv_cache_bytes;
  int64_t logits_bytes;  // that requests may hold at once
  bool has_bfloat16_kv_cache = false;  // or float32
  int32_t max_beam_width = 1;  // <= max_batch_size
};

struct EngineConfig {
  ModelConfig model;
  BuildConfig build;
};

// Reads and checks the config.json of an engine directory. Throws Error naming the file and the field
// (kNotFound: there is no such file; kUnsupported: this version does not have what the field asks for).
EngineConfig load_engine_config(const std::filesystem::path& file);

}  // namespace inflight
