#include "engine/model_config.h"

#include <bit>
#include <cmath>
#include <fstream>
#include <initializer_list>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "common/error.h"

namespace inflight {
namespace {

using nlohmann::json;

constexpr int64_t kMaxInt32 = std::numeric_limits<int32_t>::max();
constexpr int32_t kEngineVersion = 1;

// One JSON object of the file, read field by field; an error names the file and the field's full path.
class Fields {
 public:
  Fields(const std::filesystem::path& file, std::string prefix, const json& object)
      : file_(file), prefix_(std::move(prefix)), object_(object) {}

  template <class... Args>
  [[noreturn]] void fail(ErrorCode code, const std::string& name, const Args&... args) const {
    throw_error(code, file_.string(), ": ", prefix_, name, " ", args...);
  }

  bool has(const std::string& name) const { return object_.contains(name) && !object_[name].is_null(); }

  Fields child(const std::string& name) const {
    const json& value = required(name);
    if (!value.is_object()) fail(ErrorCode::kInvalidArgument, name, "must be a JSON object");
    return Fields(file_, prefix_ + name + ".", value);
  }

  int64_t integer(const std::string& name, int64_t least, int64_t most = kMaxInt32) const {
    return checked_integer(name, required(name), least, most);
  }

  std::vector<int32_t> integers(const std::string& name, int64_t least, int64_t most = kMaxInt32) const {
    const json& array = required(name);
    if (!array.is_array()) fail(ErrorCode::kInvalidArgument, name, "must be a list of integers");
    std::vector<int32_t> values;
    for (const json& value : array) values.push_back(static_cast<int32_t>(checked_integer(name, value, least, most)));
    return values;
  }

  // A finite number greater than zero.
  double positive(const std::string& name) const {
    const json& value = required(name);
    if (!value.is_number() || !std::isfinite(value.get<double>()) || value.get<double>() <= 0) {
      fail(ErrorCode::kInvalidArgument, name, "is ", value.dump(), "; it must be a number > 0");
    }
    return value.get<double>();
  }

  double positive(const std::string& name, double if_absent) const { return has(name) ? positive(name) : if_absent; }

  std::optional<double> optional_positive(const std::string& name) const {
    return has(name) ? std::optional(positive(name)) : std::nullopt;
  }

  bool boolean(const std::string& name) const {
    const json& value = required(name);
    if (!value.is_boolean()) fail(ErrorCode::kInvalidArgument, name, "is ", value.dump(), "; it must be true or false");
    return value.get<bool>();
  }

  std::string string(const std::string& name) const {
    const json& value = required(name);
    if (!value.is_string()) fail(ErrorCode::kInvalidArgument, name, "is ", value.dump(), "; it must be a string");
    return value.get<std::string>();
  }

  // One of what this version has.
  std::string choice(const std::string& name, std::initializer_list<const char*> supported) const {
    const std::string value = string(name);
    std::string choices;
    for (const char* choice : supported) {
      if (value == choice) return value;
      choices += choices.empty() ? "" : ", ";
      choices += '"' + std::string(choice) + '"';
    }
    fail(ErrorCode::kUnsupported, name, "is \"", value, "\"; this version takes only ", choices);
  }

  // Accepts only what this version has.
  void expect(const std::string& name, const json& supported) const {
    const json& value = required(name);
    if (value != supported) {
      fail(ErrorCode::kUnsupported, name, "is ", value.dump(), "; this version takes only ", supported.dump());
    }
  }

 private:
  const json& required(const std::string& name) const {
    if (!object_.contains(name)) fail(ErrorCode::kInvalidArgument, name, "is missing");
    return object_[name];
  }

  int64_t checked_integer(const std::string& name, const json& value, int64_t least, int64_t most) const {
    const bool fits = value.is_number_integer() && !(value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX);
    if (!fits || value.get<int64_t>() < least || value.get<int64_t>() > most) {
      fail(ErrorCode::kInvalidArgument, name, "is ", value.dump(), "; it must be an integer in [", least, ", ", most,
           "]");
    }
    return value.get<int64_t>();
  }

  const std::filesystem::path& file_;
  const std::string prefix_;
  const json& object_;
};

RopeConfig parse_rope(const Fields& fields, int32_t max_position_embeddings) {
  static const std::map<std::string, RopeType> types = {{"default", RopeType::kDefault},
                                                        {"linear", RopeType::kLinear},
                                                        {"dynamic", RopeType::kDynamic},
                                                        {"llama3", RopeType::kLlama3},
                                                        {"yarn", RopeType::kYarn}};
  const std::string type = fields.string("type");
  if (!types.count(type)) {
    fields.fail(ErrorCode::kUnsupported, "type", "is \"", type,
                "\"; this version has default, linear, dynamic, llama3 and yarn");
  }

  RopeConfig rope;
  rope.type = types.at(type);
  rope.theta = fields.positive("theta");
  if (rope.type == RopeType::kLinear || rope.type == RopeType::kDynamic || rope.type == RopeType::kLlama3) {
    rope.factor = fields.positive("factor");
  }
  if (rope.type == RopeType::kLlama3 || rope.type == RopeType::kYarn) {
    rope.original_max_position_embeddings = fields.has("original_max_position_embeddings")
                                                ? fields.integer("original_max_position_embeddings", 1)
                                                : max_position_embeddings;
  }
  if (rope.type == RopeType::kLlama3) {
    rope.low_freq_factor = fields.positive("low_freq_factor");
    rope.high_freq_factor = fields.positive("high_freq_factor");
    if (rope.high_freq_factor <= rope.low_freq_factor) {
      fields.fail(ErrorCode::kInvalidArgument, "high_freq_factor", "must be greater than low_freq_factor");
    }
  }
  if (rope.type == RopeType::kYarn) {
    rope.factor = fields.positive("factor", double(max_position_embeddings) / rope.original_max_position_embeddings);
    rope.beta_fast = fields.positive("beta_fast", rope.beta_fast);
    rope.beta_slow = fields.positive("beta_slow", rope.beta_slow);
    rope.attention_factor = fields.optional_positive("attention_factor");
    rope.mscale = fields.optional_positive("mscale");
    rope.mscale_all_dim = fields.optional_positive("mscale_all_dim");
    if (fields.has("truncate")) rope.truncate = fields.boolean("truncate");
  }
  return rope;
}

ModelConfig parse_model(const Fields& fields) {
  ModelConfig model;
  model.model_type = fields.string("model_type");
  model.vocab_size = fields.integer("vocab_size", 1);
  model.hidden_size = fields.integer("hidden_size", 1);
  model.num_hidden_layers = fields.integer("num_hidden_layers", 1);
  model.num_attention_heads = fields.integer("num_attention_heads", 1);
  model.num_key_value_heads = fields.integer("num_key_value_heads", 1);
  if (model.num_attention_heads % model.num_key_value_heads != 0) {
    fields.fail(ErrorCode::kInvalidArgument, "num_key_value_heads", "is ", model.num_key_value_heads,
                "; it must divide num_attention_heads, ", model.num_attention_heads);
  }
  model.head_size = fields.integer("head_size", 2);
  if (model.head_size % 2 != 0) {
    fields.fail(ErrorCode::kInvalidArgument, "head_size", "is ", model.head_size,
                "; rotary embeddings need an even one");
  }
  model.intermediate_size = fields.integer("intermediate_size", 1);
  model.max_position_embeddings = fields.integer("max_position_embeddings", 1);
  const int64_t heads = int64_t{model.num_attention_heads} + 2 * int64_t{model.num_key_value_heads};
  if (heads * model.head_size > kMaxInt32) fields.fail(ErrorCode::kInvalidArgument, "head_size", "is too large");
  if (model.intermediate_size > kMaxInt32 / 2) {
    fields.fail(ErrorCode::kInvalidArgument, "intermediate_size", "is too large");
  }

  model.norm_epsilon = static_cast<float>(fields.positive("norm_epsilon"));
  if (model.norm_epsilon >= 1) fields.fail(ErrorCode::kInvalidArgument, "norm_epsilon", "must be below 1");
  fields.expect("hidden_act", "silu");
  model.tie_word_embeddings = fields.boolean("tie_word_embeddings");
  model.qkv_bias = fields.boolean("qkv_bias");
  model.dense_bias = fields.boolean("dense_bias");
  model.mlp_bias = fields.boolean("mlp_bias");
  model.qk_norm = fields.boolean("qk_norm");
  model.rope = parse_rope(fields.child("rope"), model.max_position_embeddings);
  model.layer_windows = fields.integers("layer_windows", 0);
  if (model.layer_windows.size() != static_cast<size_t>(model.num_hidden_layers)) {
    fields.fail(ErrorCode::kInvalidArgument, "layer_windows", "has ", model.layer_windows.size(),
                " entries; num_hidden_layers is ", model.num_hidden_layers);
  }
  model.end_ids = fields.integers("end_ids", 0);
  model.pad_id = fields.integer("pad_id", -1);
  fields.child("mapping").expect("world_size", 1);
  return model;
}

BuildConfig parse_build(const Fields& fields) {
  BuildConfig build;
  build.device = fields.string("device");
  build.max_batch_size = fields.integer("max_batch_size", 1);
  build.max_num_tokens = fields.integer("max_num_tokens", 1);
  if (build.max_num_tokens < build.max_batch_size) {
    fields.fail(ErrorCode::kInvalidArgument, "max_num_tokens", "is ", build.max_num_tokens,
                "; it must be at least max_batch_size, ", build.max_batch_size);
  }
  build.max_seq_len = fields.integer("max_seq_len", 2);
  build.tokens_per_block = fields.integer("tokens_per_block", 1);
  if (!std::has_single_bit(static_cast<uint32_t>(build.tokens_per_block))) {
    fields.fail(ErrorCode::kInvalidArgument, "tokens_per_block", "is ", build.tokens_per_block,
                "; it must be a power of two");
  }
  build.kv_cache_bytes = fields.integer("kv_cache_bytes", 1, INT64_MAX);
  build.logits_bytes = fields.integer("logits_bytes", 0, INT64_MAX);
  build.has_bfloat16_kv_cache = fields.choice("kv_cache_dtype", {"float32", "bfloat16"}) == "bfloat16";
  if (build.has_bfloat16_kv_cache && build.tokens_per_block == 1) {
    fields.fail(ErrorCode::kInvalidArgument, "tokens_per_block",
                "is 1; with a kv_cache_dtype of bfloat16, which stores ", "tokens in pairs, it must be at least 2");
  }
  build.max_beam_width = fields.integer("max_beam_width", 1);
  if (build.max_beam_width > build.max_batch_size) {
    fields.fail(ErrorCode::kInvalidArgument, "max_beam_width", "is ", build.max_beam_width,
                "; each beam takes a slot: it must be at most max_batch_size, ", build.max_batch_size);
  }
  return build;
}

}  // namespace

EngineConfig load_engine_config(const std::filesystem::path& file) {
  std::ifstream stream(file);
  if (!stream) {
    throw_error(ErrorCode::kNotFound, "cannot open ", file.string(),
                "; an engine directory, made by `inflight build`, holds config.json and rank0.safetensors");
  }
  const json root = json::parse(stream, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) throw_error(ErrorCode::kInvalidArgument, file.string(), ": not a JSON object");

  const Fields fields(file, "", root);
  if (fields.string("format") != "inflight-engine") {
    fields.fail(ErrorCode::kInvalidArgument, "format", "is ", root["format"].dump(),
                ", not \"inflight-engine\"; make an engine of a checkpoint with `inflight build`");
  }
  if (fields.integer("version", 0) != kEngineVersion) {
    fields.fail(ErrorCode::kUnsupported, "version", "is ", root["version"].dump(), "; this version reads ",
                kEngineVersion, "; rebuild the engine with `inflight build`");
  }
  return {parse_model(fields.child("pretrained_config")), parse_build(fields.child("build_config"))};
}

}  // namespace inflight
