#include "triton/model/backend_config.h"

#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "check.h"
#include "common/logging.h"

using namespace inflight;
using namespace inflight::triton;

namespace {

const std::filesystem::path kEngine = std::filesystem::temp_directory_path();
const std::filesystem::path kModel = "/repository/tensorrt_llm";

nlohmann::json document(const std::map<std::string, std::string>& parameters) {
  nlohmann::json config = {{"max_batch_size", 8},
                           {"parameters", {{"gpt_model_path", {{"string_value", kEngine.string()}}}}}};
  for (const auto& [name, value] : parameters) config["parameters"][name] = {{"string_value", value}};
  return config;
}

BackendConfig parse(const std::map<std::string, std::string>& parameters) {
  return parse_backend_config(document(parameters).dump(), kModel);
}

std::vector<std::string> warnings_of(const std::function<void()>& action) {
  std::vector<std::string> warnings;
  set_log_sink([&](LogLevel level, const std::string& message) {
    if (level == LogLevel::kWarning) warnings.push_back(message);
  });
  action();
  set_log_sink([](LogLevel, const std::string&) {});
  return warnings;
}

EngineInfo engine_info() {
  EngineInfo info{};
  info.max_batch_size = 8;
  info.max_seq_len = 1024;
  return info;
}

}  // namespace

TEST(empty_and_unfilled_values_are_defaults) {
  const auto config = parse({{"max_beam_width", "${max_beam_width}"},
                             {"enable_chunked_context", ""},
                             {"exclude_input_in_output", "${exclude_input_in_output | default('true')}"},
                             {"max_tokens_in_paged_kv_cache", "${max_tokens_in_paged_kv_cache}"}});
  CHECK(config.batch_manager.enable_chunked_context);
  CHECK(!config.exclude_input_in_output);
  CHECK(!config.engine.max_tokens_in_kv_cache);
  CHECK(!config.decoupled);
  CHECK_EQ(config.batch_manager.max_queue_size, kDefaultMaxQueueSize);
  CHECK_EQ(config.batch_manager.max_responses_per_second, kDefaultMaxResponsesPerSecond);
}

TEST(values_are_typed) {
  auto json = document({{"enable_chunked_context", "False"},
                        {"exclude_input_in_output", "1"},
                        {"max_tokens_in_paged_kv_cache", "2560"},
                        {"max_responses_per_second", "0"}});
  json["model_transaction_policy"] = {{"decoupled", true}};
  json["dynamic_batching"] = {{"default_queue_policy", {{"max_queue_size", 7}}}};
  const auto config = parse_backend_config(json.dump(), kModel);
  CHECK(!config.batch_manager.enable_chunked_context);
  CHECK(config.exclude_input_in_output);
  CHECK_EQ(*config.engine.max_tokens_in_kv_cache, 2560);
  CHECK_EQ(config.batch_manager.max_responses_per_second, 0);
  CHECK_EQ(config.batch_manager.max_queue_size, 7);
  CHECK(config.decoupled);
}

TEST(reporting_periods_are_parameters) {
  const auto config = parse({{"stats_check_period_ms", "20"}, {"iter_stats_max_iterations", "0"}});
  CHECK_EQ(config.stats_check_period.count(), 20);
  CHECK_EQ(config.iter_stats_max_iterations, 0);
  CHECK_ERROR(parse({{"stats_check_period_ms", "0"}}), ErrorCode::kInvalidArgument,
              "stats_check_period_ms is \"0\"; it must be 1 or more");
  CHECK_ERROR(parse({{"iter_stats_max_iterations", "-1"}}), ErrorCode::kInvalidArgument,
              "iter_stats_max_iterations is \"-1\"");
}

TEST(the_queue_size_is_a_parameter_or_the_dynamic_batchers) {
  CHECK_EQ(parse({{"max_queue_size", "3"}}).batch_manager.max_queue_size, 3);
  CHECK_EQ(parse({{"max_queue_size", "0"}}).batch_manager.max_queue_size, 0);  // no limit
  CHECK_ERROR(parse({{"max_queue_size", "-3"}}), ErrorCode::kInvalidArgument, "max_queue_size is \"-3\"");
}

TEST(how_many_words_a_request_may_bring_is_a_parameter) {
  const WordLimits limits = parse({{"max_words", "5"}, {"max_words_length", "60"}}).batch_manager.word_limits;
  CHECK_EQ(limits.max_words, 5);
  CHECK_EQ(limits.max_length, 60);
  CHECK_EQ(parse({{"max_words", ""}}).batch_manager.word_limits.max_words, WordLimits().max_words);
  CHECK_ERROR(parse({{"max_words", "-1"}}), ErrorCode::kInvalidArgument, "max_words is \"-1\"");
}

TEST(an_unknown_parameter_is_warned_of_by_file_and_name) {
  const auto warnings = warnings_of([] {
    parse({{"max_respones_per_second", "5"},
           {"max_queue_delay_microseconds", "5"},
           {"max_beam_width", "1"},
           {"FORCE_CPU_ONLY_INPUT_TENSORS", "no"},
           {"executor_worker_path", "/opt/tritonserver/backends/tensorrtllm/trtllmExecutorWorker"},
           {"worker_path", "/opt/tritonserver/backends/tensorrtllm/triton_tensorrtllm_worker"},
           {"max_num_sequences", "64"}});
  });
  CHECK_EQ(warnings.size(), 1u);
  CHECK(warnings[0].find("config.pbtxt: parameter max_respones_per_second is not known") != std::string::npos);
}

TEST(a_value_of_the_wrong_type_is_refused_by_file_and_name) {
  CHECK_ERROR(
      parse({{"enable_chunked_context", "maybe"}}), ErrorCode::kInvalidArgument,
      "/repository/tensorrt_llm/config.pbtxt: parameter enable_chunked_context is \"maybe\"; it must be true or false");
  CHECK_ERROR(parse({{"max_tokens_in_paged_kv_cache", "10k"}}), ErrorCode::kInvalidArgument,
              "is \"10k\"; it must be an integer");
  CHECK_ERROR(parse({{"max_responses_per_second", "-1"}}), ErrorCode::kInvalidArgument, "is \"-1\"");
}

TEST(the_policy_follows_from_the_type_of_batching_and_the_schedulers) {
  const auto policy = [](const std::string& type, const std::string& scheduler) {
    return parse({{"gpt_model_type", type}, {"batch_scheduler_policy", scheduler}}).batch_manager.scheduler_policy;
  };
  CHECK(policy("", "") == SchedulerPolicy::kGuaranteedNoEvict);
  CHECK(policy("inflight_batching", "guaranteed_no_evict") == SchedulerPolicy::kGuaranteedNoEvict);
  CHECK(policy("inflight_fused_batching", "max_utilization") == SchedulerPolicy::kMaxUtilization);
  CHECK(policy("inflight_fused_batching", "static_batch") == SchedulerPolicy::kStaticBatch);
  CHECK(policy("V1", "guaranteed_no_evict") == SchedulerPolicy::kStaticBatch);
  CHECK_ERROR(policy("v1", "max_utilization"), ErrorCode::kInvalidArgument,
              "batch_scheduler_policy is \"max_utilization\"; it must be guaranteed_no_evict or static_batch with");
  CHECK_ERROR(policy("v2", ""), ErrorCode::kInvalidArgument, "gpt_model_type is \"v2\"");
}

TEST(unknown_ways_to_schedule_or_decode_are_warned_of_and_the_defaults_taken) {
  const auto warnings = warnings_of([] {
    const auto options = parse({{"batch_scheduler_policy", "max_use"}, {"decoding_mode", "lookup"}}).batch_manager;
    CHECK(options.scheduler_policy == SchedulerPolicy::kGuaranteedNoEvict);
    CHECK_EQ(options.prompt_lookup.max_draft_tokens, 0);
  });
  CHECK_EQ(warnings.size(), 2u);
  CHECK(warnings[0].find("config.pbtxt: parameter batch_scheduler_policy is \"max_use\"") != std::string::npos);
  CHECK(warnings[1].find("config.pbtxt: parameter decoding_mode is \"lookup\"") != std::string::npos);
}

TEST(options_of_the_kv_cache_are_parameters) {
  const auto config = parse({{"enable_kv_cache_reuse", "true"},
                             {"kv_cache_host_memory_bytes", "3000000000"},
                             {"max_attention_window_size", "512,1024"},
                             {"sink_token_length", "4"}});
  CHECK(config.batch_manager.enable_kv_cache_reuse);
  CHECK_EQ(config.engine.kv_cache_host_bytes, 3000000000);
  CHECK(config.engine.max_attention_windows == (std::vector<int32_t>{512, 1024}));
  CHECK_EQ(config.engine.sink_tokens, 4);
  for (const std::string name : {"kv_cache_host_memory_bytes", "sink_token_length"}) {
    CHECK_ERROR(parse({{name, "-1"}}), ErrorCode::kInvalidArgument, "parameter " + name + " is \"-1\"; it must be 0");
  }
  const auto windows = [](const std::string& name, const std::string& value) {
    return parse({{name, value}}).engine.max_attention_windows;
  };
  CHECK(windows("max_attention_window_size", " 4096, 8192 ") == (std::vector<int32_t>{4096, 8192}));
  CHECK(windows("max_kv_cache_length", "512") == std::vector<int32_t>{512});
  CHECK_ERROR(parse({{"max_attention_window_size", "512,,7"}}), ErrorCode::kInvalidArgument,
              "max_attention_window_size is \"512,,7\"; it must be an integer");
}

TEST(drafts_are_looked_up_in_two_decoding_modes) {
  const auto options = [](std::map<std::string, std::string> parameters) {
    return parse(parameters).batch_manager.prompt_lookup;
  };
  CHECK_EQ(options({{"decoding_mode", "top_k_top_p"}}).max_draft_tokens, 0);
  CHECK(options({{"decoding_mode", "lookahead"}, {"lookahead_window_size", "7"}}).max_draft_tokens > 0);
  const auto chosen = options(
      {{"decoding_mode", "prompt_lookup"}, {"prompt_lookup_max_draft_tokens", "5"}, {"prompt_lookup_max_ngram", "2"}});
  CHECK_EQ(chosen.max_draft_tokens, 5);
  CHECK_EQ(chosen.max_ngram, 2);
  CHECK_ERROR(options({{"decoding_mode", "prompt_lookup"}, {"prompt_lookup_max_ngram", "0"}}),
              ErrorCode::kInvalidArgument, "prompt_lookup_max_ngram is \"0\"; it must be 1 or more");
  CHECK_ERROR(options({{"prompt_lookup_max_draft_tokens", "5"}}), ErrorCode::kInvalidArgument,
              "it must be left empty, unless decoding_mode is prompt_lookup");
}

TEST(logits_are_of_the_type_of_their_outputs) {
  auto json = document({});
  json["output"] = {{{"name", "output_ids"}, {"data_type", "TYPE_INT32"}},
                    {{"name", "context_logits"}, {"data_type", "TYPE_FP16"}}};
  CHECK_EQ(parse_backend_config(json.dump(), kModel).logits_datatype, TRITONSERVER_TYPE_FP16);
  json["output"][1]["data_type"] = "TYPE_BF16";
  CHECK_ERROR(parse_backend_config(json.dump(), kModel), ErrorCode::kUnsupported,
              "output context_logits has data_type TYPE_BF16; logits_datatype must be TYPE_FP32 or TYPE_FP16");
}

TEST(outputs_that_were_always_written_once_are_filled_where_sequence_index_is_unknown) {
  auto json = document({});
  CHECK(!parse_backend_config(json.dump(), kModel).fills_unasked_outputs);
  json["input"] = {{{"name", "input_ids"}}};
  CHECK(parse_backend_config(json.dump(), kModel).fills_unasked_outputs);
  json["output"] = {{{"name", "sequence_index"}}};
  CHECK(!parse_backend_config(json.dump(), kModel).fills_unasked_outputs);
  json["parameters"]["fill_unasked_outputs"] = {{"string_value", "true"}};
  CHECK(parse_backend_config(json.dump(), kModel).fills_unasked_outputs);
}

TEST(what_is_not_served_is_refused_by_name) {
  const std::map<std::string, std::string> values = {
      {"decoding_mode", "medusa"},
      {"guided_decoding_backend", "outlines"},
      {"medusa_choices", "{0}"},
      {"eagle_choices", "{0}"},
      {"encoder_model_path", "/encoder"},
      {"participant_ids", "0,1"},
      {"cross_kv_cache_fraction", "0.5"},
      {"gpu_device_ids", "0;1"},
      {"num_nodes", "2"},
      {"lora_prefetch_dir", "/adapters"},
  };
  for (const auto& [name, value] : values) {
    CHECK_ERROR(parse({{name, value}}), ErrorCode::kUnsupported, "parameter " + name);
  }
}

TEST(upstreams_documented_values_are_accepted) {
  parse({{"max_beam_width", "1"},
         {"batch_scheduler_policy", "guaranteed_no_evict"},
         {"enable_kv_cache_reuse", "False"},
         {"decoding_mode", "top_k_top_p"},
         {"kv_cache_free_gpu_mem_fraction", "0.5"},
         {"gpu_device_ids", "0"},
         {"FORCE_CPU_ONLY_INPUT_TENSORS", "no"}});
}

TEST(the_engine_directory_is_required) {
  nlohmann::json json = {{"max_batch_size", 8}};
  CHECK_ERROR(parse_backend_config(json.dump(), kModel), ErrorCode::kInvalidArgument, "gpt_model_path is missing");
  CHECK_ERROR(parse({{"gpt_model_path", "${engine_dir}"}}), ErrorCode::kInvalidArgument,
              "gpt_model_path is \"${engine_dir}\", an unfilled template variable");
  CHECK_ERROR(parse({{"gpt_model_path", "/does/not/exist"}}), ErrorCode::kNotFound,
              "\"/does/not/exist\", which is not a directory");
}

TEST(several_instances_are_refused) {
  auto json = document({});
  json["instance_group"] = {{{"count", 1}}};
  parse_backend_config(json.dump(), kModel);
  json["instance_group"] = {{{"count", 2}}};
  CHECK_ERROR(parse_backend_config(json.dump(), kModel), ErrorCode::kUnsupported, "2 instances");
}

TEST(of_a_batch_size_above_the_engines_the_rest_waits) {
  auto config = parse({});
  config.max_batch_size = 128;
  check_against_engine(config, engine_info());
}

TEST(the_tokenizer_is_the_engines_or_the_one_that_a_parameter_gives) {
  const std::filesystem::path given = kEngine / "given_tokenizer";
  CHECK(parse({}).batch_manager.tokenizer_dir.empty());
  CHECK(parse({{"tokenizer_dir", "${tokenizer_dir}"}}).batch_manager.tokenizer_dir.empty());
  CHECK(parse({{"tokenizer_dir", given.string()}}).batch_manager.tokenizer_dir == given);
}

TEST(more_beams_than_the_engines_name_both_files_and_values) {
  auto info = engine_info();
  info.max_beam_width = 2;
  check_against_engine(parse({{"max_beam_width", "2"}}), info);
  check_against_engine(parse({}), info);
  CHECK_ERROR(
      check_against_engine(parse({{"max_beam_width", "3"}}), info), ErrorCode::kInvalidArgument,
      "config.pbtxt: parameter max_beam_width is 3, but " + (kEngine / "config.json").string() + " was built for 2");
  CHECK_ERROR(parse({{"max_beam_width", "0"}}), ErrorCode::kInvalidArgument, "max_beam_width is \"0\"");
}

TEST_MAIN()
