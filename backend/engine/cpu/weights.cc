#include "engine/cpu/weights.h"

#include <cstdint>

#include "common/error.h"

namespace inflight::cpu {

Weights::Weights(const std::filesystem::path& file, const ModelConfig& config) : file_(file) {
  vocab_embedding = matrix("transformer.vocab_embedding", config.vocab_size, config.hidden_size);
  for (int32_t i = 0; i < config.num_hidden_layers; ++i) {
    const std::string prefix = concat("transformer.layers.", i, ".");
    LayerWeights& layer = layers.emplace_back();
    layer.input_layernorm = vector(prefix + "input_layernorm.weight", config.hidden_size);
    layer.qkv = linear(prefix + "attention.qkv", config.qkv_size(), config.hidden_size, config.qkv_bias);
    if (config.qk_norm) {
      layer.q_layernorm = vector(prefix + "attention.q_layernorm.weight", config.head_size);
      layer.k_layernorm = vector(prefix + "attention.k_layernorm.weight", config.head_size);
    }
    layer.dense = linear(prefix + "attention.dense", config.hidden_size, config.attention_size(), config.dense_bias);
    layer.post_layernorm = vector(prefix + "post_layernorm.weight", config.hidden_size);
    layer.gate_up = linear(prefix + "mlp.gate_up", 2 * config.intermediate_size, config.hidden_size, config.mlp_bias);
    layer.down = linear(prefix + "mlp.down", config.hidden_size, config.intermediate_size, config.mlp_bias);
  }
  final_layernorm = vector("transformer.ln_f.weight", config.hidden_size);
  lm_head = config.tie_word_embeddings ? vocab_embedding : matrix("lm_head", config.vocab_size, config.hidden_size);
  for (const auto& [name, tensor] : file_.tensors()) {
    if (!read_.count(name)) {
      throw_error(ErrorCode::kInvalidArgument, file.string(), ": holds tensor '", name,
                  "', which config.json does not ask for; rebuild the engine with `inflight build`");
    }
  }
}

std::span<const float> Weights::vector(const std::string& name, int64_t size) {
  read_.insert(name);
  const TensorView& tensor = file_.tensor(name);
  if (tensor.dtype != "F32" || tensor.shape != std::vector<int64_t>{size}) {
    throw_error(ErrorCode::kInvalidArgument, file_.path().string(), ": tensor '", name, "' must be F32 of ", size,
                " elements, as config.json says; rebuild the engine with `inflight build`");
  }
  if (reinterpret_cast<uintptr_t>(tensor.data.data()) % alignof(float) != 0) {
    throw_error(ErrorCode::kInvalidArgument, file_.path().string(), ": tensor '", name,
                "' does not lie at a multiple of 4 bytes; rebuild the engine with `inflight build`");
  }
  return {reinterpret_cast<const float*>(tensor.data.data()), static_cast<size_t>(size)};
}

PackedMatrix Weights::matrix(const std::string& name, int64_t rows, int64_t columns) {
  const std::string full_name = name + ".weight";
  read_.insert(full_name);
  const PackedMatrix result(file_.tensor(full_name).data, concat(file_.path().string(), ": ", full_name));
  if (result.rows() != rows || result.columns() != columns) {
    throw_error(ErrorCode::kInvalidArgument, file_.path().string(), ": tensor '", full_name, "' is [", result.rows(),
                ", ", result.columns(), "], but config.json asks for [", rows, ", ", columns,
                "]; rebuild the engine with `inflight build`");
  }
  return result;
}

LinearWeights Weights::linear(const std::string& name, int64_t rows, int64_t columns, bool has_bias) {
  return {matrix(name, rows, columns), has_bias ? vector(name + ".bias", rows) : std::span<const float>{}};
}

}  // namespace inflight::cpu
