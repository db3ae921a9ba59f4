#include "python/manager_options.h"

#include <map>
#include <string>

#include "python/keyword_arguments.h"

namespace nb = nanobind;

namespace inflight::python {
namespace {

constexpr int32_t kMaxHistory = 1'000'000;

template <class T>
auto engine(T EngineOptions::* field) {
  return setter(&ManagerOptions::engine, field);
}

template <class T>
auto batch_manager(T BatchManagerOptions::* field) {
  return setter(&ManagerOptions::batch_manager, field);
}

auto prompt_lookup(int32_t PromptLookupOptions::* field) {
  return [field](ManagerOptions& options, const std::string& name, nb::handle value) {
    options.batch_manager.prompt_lookup.*field = argument<int32_t>(name, value);
  };
}

auto word_limits(int32_t WordLimits::* field) {
  return [field](ManagerOptions& options, const std::string& name, nb::handle value) {
    options.batch_manager.word_limits.*field = argument<int32_t>(name, value);
  };
}

std::filesystem::path to_path(const std::string& name, nb::handle value) {
  return value.is_none() ? std::filesystem::path() : argument<std::filesystem::path>(name, value);
}

SchedulerPolicy to_policy(const std::string& name, nb::handle value) {
  static const std::map<std::string, SchedulerPolicy> policies = {
      {"guaranteed_no_evict", SchedulerPolicy::kGuaranteedNoEvict},
      {"max_utilization", SchedulerPolicy::kMaxUtilization},
      {"static_batch", SchedulerPolicy::kStaticBatch}};
  constexpr const char* kAllowed = "'guaranteed_no_evict', 'max_utilization' or 'static_batch'";
  const auto policy = policies.find(argument<std::string>(name, value, kAllowed));
  if (policy == policies.end()) refuse(name, value, kAllowed);
  return policy->second;
}

const KeywordArguments<ManagerOptions>& manager_arguments() {
  static const KeywordArguments<ManagerOptions> arguments(
      "option of a BatchManager",
      {
          {"num_threads", engine(&EngineOptions::num_threads)},
          {"max_tokens_in_kv_cache", engine(&EngineOptions::max_tokens_in_kv_cache)},
          {"kv_cache_host_bytes", engine(&EngineOptions::kv_cache_host_bytes)},
          {"max_attention_windows", engine(&EngineOptions::max_attention_windows)},
          {"sink_tokens", engine(&EngineOptions::sink_tokens)},

          {"max_queue_size", batch_manager(&BatchManagerOptions::max_queue_size)},
          {"enable_chunked_context", batch_manager(&BatchManagerOptions::enable_chunked_context)},
          {"max_responses_per_second", batch_manager(&BatchManagerOptions::max_responses_per_second)},
          {"scheduler_policy",
           [](ManagerOptions& options, const std::string& name, nb::handle value) {
             options.batch_manager.scheduler_policy = to_policy(name, value);
           }},
          {"enable_kv_cache_reuse", batch_manager(&BatchManagerOptions::enable_kv_cache_reuse)},
          {"prompt_lookup_max_draft_tokens", prompt_lookup(&PromptLookupOptions::max_draft_tokens)},
          {"prompt_lookup_max_ngram", prompt_lookup(&PromptLookupOptions::max_ngram)},
          {"max_words", word_limits(&WordLimits::max_words)},
          {"max_words_length", word_limits(&WordLimits::max_length)},
          {"tokenizer_dir", [](ManagerOptions& options, const std::string& name,
                               nb::handle value) { options.batch_manager.tokenizer_dir = to_path(name, value); }},
          {"draft_engine_dir", [](ManagerOptions& options, const std::string& name,
                                  nb::handle value) { options.draft_engine_dir = to_path(name, value); }},
          {"num_draft_tokens",
           [](ManagerOptions& options, const std::string& name, nb::handle value) {
             options.batch_manager.draft_model.num_draft_tokens = argument<int32_t>(name, value);
           }},

          {"history",
           [](ManagerOptions& options, const std::string& name, nb::handle value) {
             constexpr const char* kAllowed = "an integer from 0 to 1000000";
             options.history = argument<int32_t>(name, value, kAllowed);
             if (options.history < 0 || options.history > kMaxHistory) refuse(name, value, kAllowed);
           }},
      });
  return arguments;
}

}  // namespace

ManagerOptions parse_manager_options(const nb::kwargs& options) {
  ManagerOptions result;
  manager_arguments().read(result, options);
  return result;
}

}  // namespace inflight::python
