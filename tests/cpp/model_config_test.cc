#include "engine/model_config.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "check.h"
#include "engine/engine.h"
#include "tiny_model.h"

using namespace inflight;
using namespace inflight::test;
using nlohmann::json;

namespace {

constexpr ErrorCode kInvalid = ErrorCode::kInvalidArgument;
constexpr ErrorCode kUnsupported = ErrorCode::kUnsupported;

std::filesystem::path write(const std::string& text) {
  const std::filesystem::path file = temporary_directory() / "config.json";
  std::ofstream(file) << text;
  return file;
}

// The tiny model's config.json with the value at a JSON pointer replaced.
std::filesystem::path changed(const std::string& pointer, const json& value) {
  static const std::filesystem::path original = write_engine(random_model(tiny_config(), 1)) / "config.json";
  json config = json::parse(std::ifstream(original));
  config[json::json_pointer(pointer)] = value;
  return write(config.dump());
}

}  // namespace

TEST(what_was_written_is_read) {
  EngineConfig expected = tiny_config();
  expected.model.layer_windows = {0, 9};
  expected.model.end_ids = {2, 5};
  expected.model.rope = {.type = RopeType::kYarn,
                         .theta = 5e5,
                         .factor = 4,
                         .original_max_position_embeddings = 16,
                         .beta_fast = 20,
                         .beta_slow = 2,
                         .attention_factor = 1.5,
                         .truncate = false};
  const EngineConfig config = load_engine_config(write_engine(random_model(expected, 1)) / "config.json");
  CHECK_EQ(config.model.model_type, "llama");
  CHECK_EQ(config.model.head_size, 22);
  CHECK_EQ(config.model.norm_epsilon, 1e-5f);
  CHECK(config.model.layer_windows == expected.model.layer_windows);
  CHECK(config.model.end_ids == expected.model.end_ids);
  CHECK(config.model.rope.type == RopeType::kYarn);
  CHECK_EQ(config.model.rope.beta_fast, 20);
  CHECK_EQ(*config.model.rope.attention_factor, 1.5);
  CHECK(!config.model.rope.mscale);
  CHECK(!config.model.rope.truncate);
  CHECK_EQ(config.build.max_num_tokens, 160);
  CHECK_EQ(config.build.kv_cache_bytes, 1 << 20);
  CHECK_EQ(config.build.max_beam_width, 4);
}

TEST(yarn_takes_what_it_lacks_from_max_position_embeddings) {
  const auto file = changed("/pretrained_config/rope",
                            {{"type", "yarn"}, {"theta", 10000}, {"original_max_position_embeddings", 16}});
  CHECK_EQ(load_engine_config(file).model.rope.factor, 4);
  const auto other = changed("/pretrained_config/rope", {{"type", "yarn"}, {"theta", 10000}, {"factor", 2}});
  CHECK_EQ(load_engine_config(other).model.rope.original_max_position_embeddings, 64);
}

TEST(every_wrong_field_is_named_with_its_file) {
  CHECK_ERROR(load_engine_config("/nowhere/config.json"), ErrorCode::kNotFound, "/nowhere/config.json");
  CHECK_ERROR(load_engine_config(write("{")), kInvalid, "config.json: not a JSON object");
  CHECK_ERROR(load_engine_config(write("[]")), kInvalid, "config.json: not a JSON object");
  CHECK_ERROR(load_engine_config(write("{}")), kInvalid, "config.json: format is missing");
  const auto rejects = [](const std::string& pointer, const json& value, ErrorCode code, const std::string& message) {
    CHECK_ERROR(load_engine_config(changed(pointer, value)), code, message);
  };
  rejects("/format", "inflight-checkpoint", kInvalid, "inflight build");
  rejects("/version", 2, kUnsupported, "version is 2");
  rejects("/pretrained_config", 3, kInvalid, "pretrained_config must be a JSON object");
  rejects("/pretrained_config/vocab_size", "many", kInvalid, "pretrained_config.vocab_size is \"many\"");
  rejects("/pretrained_config/hidden_size", 0, kInvalid, "pretrained_config.hidden_size is 0");
  rejects("/pretrained_config/hidden_size", 4.5, kInvalid, "pretrained_config.hidden_size is 4.5");
  rejects("/pretrained_config/hidden_size", 1ull << 63, kInvalid, "pretrained_config.hidden_size");
  rejects("/pretrained_config/head_size", 7, kInvalid, "pretrained_config.head_size is 7");
  rejects("/pretrained_config/head_size", INT32_MAX - 1, kInvalid, "pretrained_config.head_size");
  rejects("/pretrained_config/num_key_value_heads", 4, kInvalid, "must divide num_attention_heads, 6");
  rejects("/pretrained_config/norm_epsilon", -1, kInvalid, "pretrained_config.norm_epsilon is -1");
  rejects("/pretrained_config/norm_epsilon", 2, kInvalid, "pretrained_config.norm_epsilon must be below 1");
  rejects("/pretrained_config/hidden_act", "gelu", kUnsupported, "pretrained_config.hidden_act is \"gelu\"");
  rejects("/pretrained_config/qk_norm", 1, kInvalid, "pretrained_config.qk_norm is 1");
  rejects("/pretrained_config/layer_windows", {0}, kInvalid, "pretrained_config.layer_windows has 1 entries");
  rejects("/pretrained_config/layer_windows", {0, -1}, kInvalid, "pretrained_config.layer_windows is -1");
  rejects("/pretrained_config/rope/type", "longrope", kUnsupported, "pretrained_config.rope.type is \"longrope\"");
  rejects("/pretrained_config/rope/type", "linear", kInvalid, "pretrained_config.rope.factor is missing");
  rejects("/pretrained_config/mapping/world_size", 2, kUnsupported, "pretrained_config.mapping.world_size is 2");
  rejects("/build_config/max_num_tokens", 4, kInvalid, "build_config.max_num_tokens is 4");
  rejects("/build_config/tokens_per_block", 24, kInvalid, "build_config.tokens_per_block is 24");
  rejects("/build_config/kv_cache_dtype", 16, kInvalid, "build_config.kv_cache_dtype is 16");
  rejects("/build_config/max_beam_width", 0, kInvalid, "build_config.max_beam_width is 0");
  rejects("/build_config/max_beam_width", 6, kInvalid, "at most max_batch_size, 5");
  rejects("/build_config/kv_cache_dtype", "int8", kUnsupported, "build_config.kv_cache_dtype is \"int8\"");
}

TEST(a_device_that_this_version_lacks_is_refused) {
  CHECK_ERROR(load_engine(changed("/build_config/device", "tpu").parent_path()), kUnsupported,
              "build_config.device is \"tpu\"");
}

TEST_MAIN()
