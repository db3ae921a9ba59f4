#include "tiny_model.h"

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "engine/cpu/packed_matrix.h"

namespace inflight::test {
namespace {

using nlohmann::json;

json to_json(const RopeConfig& rope) {
  static const char* const kTypes[] = {"default", "linear", "dynamic", "llama3", "yarn"};
  json fields = {{"type", kTypes[int(rope.type)]}, {"theta", rope.theta}};
  if (rope.type != RopeType::kDefault) fields["factor"] = rope.factor;
  if (rope.original_max_position_embeddings > 0) {
    fields["original_max_position_embeddings"] = rope.original_max_position_embeddings;
  }
  if (rope.type == RopeType::kLlama3) {
    fields["low_freq_factor"] = rope.low_freq_factor;
    fields["high_freq_factor"] = rope.high_freq_factor;
  }
  if (rope.type == RopeType::kYarn) {
    fields["beta_fast"] = rope.beta_fast;
    fields["beta_slow"] = rope.beta_slow;
    fields["truncate"] = rope.truncate;
    if (rope.attention_factor) fields["attention_factor"] = *rope.attention_factor;
    if (rope.mscale) fields["mscale"] = *rope.mscale;
    if (rope.mscale_all_dim) fields["mscale_all_dim"] = *rope.mscale_all_dim;
  }
  return fields;
}

json to_json(const EngineConfig& config) {
  const ModelConfig& model = config.model;
  const BuildConfig& build = config.build;
  const json pretrained = {{"format", "inflight-checkpoint"},
                           {"version", 1},
                           {"model_type", model.model_type},
                           {"dtype", "float32"},
                           {"vocab_size", model.vocab_size},
                           {"hidden_size", model.hidden_size},
                           {"num_hidden_layers", model.num_hidden_layers},
                           {"num_attention_heads", model.num_attention_heads},
                           {"num_key_value_heads", model.num_key_value_heads},
                           {"head_size", model.head_size},
                           {"intermediate_size", model.intermediate_size},
                           {"max_position_embeddings", model.max_position_embeddings},
                           {"norm_epsilon", model.norm_epsilon},
                           {"hidden_act", "silu"},
                           {"tie_word_embeddings", model.tie_word_embeddings},
                           {"qkv_bias", model.qkv_bias},
                           {"dense_bias", model.dense_bias},
                           {"mlp_bias", model.mlp_bias},
                           {"qk_norm", model.qk_norm},
                           {"rope", to_json(model.rope)},
                           {"layer_windows", model.layer_windows},
                           {"end_ids", model.end_ids},
                           {"pad_id", model.pad_id},
                           {"bos_id", nullptr},
                           {"mapping", {{"world_size", 1}, {"tp_size", 1}, {"pp_size", 1}}}};
  return {{"format", "inflight-engine"},
          {"version", 1},
          {"pretrained_config", pretrained},
          {"build_config",
           {{"device", build.device},
            {"max_batch_size", build.max_batch_size},
            {"max_num_tokens", build.max_num_tokens},
            {"max_seq_len", build.max_seq_len},
            {"tokens_per_block", build.tokens_per_block},
            {"kv_cache_bytes", build.kv_cache_bytes},
            {"logits_bytes", build.logits_bytes},
            {"kv_cache_dtype", "float32"},
            {"max_beam_width", build.max_beam_width}}}};
}

struct TemporaryDirectory {
  std::filesystem::path path;
  TemporaryDirectory() {
    std::string name = std::filesystem::temp_directory_path() / "inflight_test_XXXXXX";
    path = mkdtemp(name.data());
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path); }
};

RawTensor packed(const std::vector<float>& weights, int64_t columns) {
  const std::vector<std::byte> blob = cpu::pack_matrix({.type = cpu::WeightType::kFloat32,
                                                        .rows = static_cast<int64_t>(weights.size()) / columns,
                                                        .columns = columns,
                                                        .data = weights.data()});
  const char* bytes = reinterpret_cast<const char*>(blob.data());
  return {"U8", {static_cast<int64_t>(blob.size())}, {bytes, bytes + blob.size()}};
}

RawTensor plain(const std::vector<float>& weights) {
  const char* bytes = reinterpret_cast<const char*>(weights.data());
  return {"F32", {static_cast<int64_t>(weights.size())}, {bytes, bytes + weights.size() * sizeof(float)}};
}

}  // namespace

EngineConfig tiny_config() {
  EngineConfig config{};
  config.model.model_type = "llama";
  config.model.vocab_size = 71;
  config.model.hidden_size = 45;
  config.model.num_hidden_layers = 2;
  config.model.num_attention_heads = 6;
  config.model.num_key_value_heads = 2;
  config.model.head_size = 22;
  config.model.intermediate_size = 51;
  config.model.max_position_embeddings = 64;
  config.model.norm_epsilon = 1e-5f;
  config.model.tie_word_embeddings = false;
  config.model.layer_windows = {0, 0};
  config.model.end_ids = {2};
  config.build.device = "cpu";
  config.build.max_batch_size = 5;
  config.build.max_num_tokens = 160;
  config.build.max_seq_len = 150;
  config.build.tokens_per_block = 16;
  config.build.kv_cache_bytes = 1 << 20;
  config.build.logits_bytes = 1 << 20;
  config.build.max_beam_width = 4;
  return config;
}

TinyModel random_model(const EngineConfig& config, uint32_t seed) {
  TinyModel model{config, {}};
  const ModelConfig& c = config.model;
  std::mt19937 generator(seed);
  const auto add = [&](const std::string& name, int64_t count, float mean, float deviation) {
    std::normal_distribution<float> distribution(mean, deviation);
    std::vector<float>& values = model.weights[name];
    for (int64_t i = 0; i < count; ++i) values.push_back(distribution(generator));
  };
  const auto add_matrix = [&](const std::string& name, int64_t rows, int64_t columns, bool has_bias) {
    add(name + ".weight", rows * columns, 0, 1.5f / std::sqrt(static_cast<float>(columns)));
    if (has_bias) add(name + ".bias", rows, 0, 0.3f);
  };
  add("transformer.vocab_embedding.weight", int64_t{c.vocab_size} * c.hidden_size, 0, 1);
  for (int32_t i = 0; i < c.num_hidden_layers; ++i) {
    const std::string layer = "transformer.layers." + std::to_string(i) + ".";
    add(layer + "input_layernorm.weight", c.hidden_size, 1, 0.2f);
    add_matrix(layer + "attention.qkv", c.qkv_size(), c.hidden_size, c.qkv_bias);
    if (c.qk_norm) {
      add(layer + "attention.q_layernorm.weight", c.head_size, 1, 0.2f);
      add(layer + "attention.k_layernorm.weight", c.head_size, 1, 0.2f);
    }
    add_matrix(layer + "attention.dense", c.hidden_size, c.attention_size(), c.dense_bias);
    add(layer + "post_layernorm.weight", c.hidden_size, 1, 0.2f);
    add_matrix(layer + "mlp.gate_up", 2 * c.intermediate_size, c.hidden_size, c.mlp_bias);
    add_matrix(layer + "mlp.down", c.hidden_size, c.intermediate_size, c.mlp_bias);
  }
  add("transformer.ln_f.weight", c.hidden_size, 1, 0.2f);
  if (!c.tie_word_embeddings) add_matrix("lm_head", c.vocab_size, c.hidden_size, false);
  return model;
}

const std::filesystem::path& temporary_directory() {
  static const TemporaryDirectory directory;
  return directory.path;
}

void write_safetensors(const std::filesystem::path& file, const std::map<std::string, RawTensor>& tensors) {
  json header = json::object();
  size_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    header[name] = {
        {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {offset, offset + tensor.data.size()}}};
    offset += tensor.data.size();
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  std::ofstream stream(file, std::ios::binary);
  stream.write(reinterpret_cast<const char*>(&length), sizeof length);
  stream << text;
  for (const auto& [name, tensor] : tensors) stream.write(tensor.data.data(), tensor.data.size());
}

std::filesystem::path write_engine(const TinyModel& model) {
  static int count = 0;
  const std::filesystem::path directory = temporary_directory() / ("engine" + std::to_string(count++));
  std::filesystem::create_directories(directory);
  std::ofstream(directory / "config.json") << to_json(model.config).dump(1);

  const ModelConfig& c = model.config.model;
  std::map<std::string, RawTensor> tensors;
  for (const auto& [name, weights] : model.weights) {
    const auto ends_with = [&name = name](const std::string& suffix) { return name.ends_with(suffix); };
    if (ends_with("norm.weight") || ends_with("ln_f.weight") || ends_with(".bias")) {
      tensors[name] = plain(weights);
    } else {
      tensors[name] = packed(weights, ends_with("dense.weight")  ? c.attention_size()
                                      : ends_with("down.weight") ? c.intermediate_size
                                                                 : c.hidden_size);
    }
  }
  write_safetensors(directory / "rank0.safetensors", tensors);
  return directory;
}

}  // namespace inflight::test
