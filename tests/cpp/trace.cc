#include "trace.h"

#include <map>
#include <set>
#include <utility>

namespace inflight::test {
namespace {

using nlohmann::json;

// The fields of an object, each of which must be asked for.
class Fields {
 public:
  explicit Fields(const json& object) : object_(object) {}

  template <class Value>
  void read(const char* name, Value& value) {
    asked_.insert(name);
    if (const auto it = object_.find(name); it != object_.end()) it->get_to(value);
  }
  template <class Value>
  void read(const char* name, std::optional<Value>& value) {
    asked_.insert(name);
    if (const auto it = object_.find(name); it != object_.end() && !it->is_null()) value = it->get<Value>();
  }
  void read(const char* name, std::optional<std::chrono::milliseconds>& value) {
    std::optional<int64_t> count;
    read(name, count);
    if (count) value = std::chrono::milliseconds(*count);
  }
  template <class Value>
  void read_choice(const char* name, Value& value, const std::map<std::string, Value>& choices) {
    std::optional<std::string> text;
    read(name, text);
    if (text) value = choices.at(*text);
  }
  const json& object(const char* name) {
    static const json kEmpty = json::object();
    asked_.insert(name);
    const auto it = object_.find(name);
    return it == object_.end() ? kEmpty : *it;
  }
  void end() const {
    for (const auto& [name, value] : object_.items()) {
      if (asked_.count(name) == 0) throw_error(ErrorCode::kInvalidArgument, "a trace has no field ", name);
    }
  }

 private:
  const json& object_;
  std::set<std::string> asked_;
};

TraceOptions read_options(const json& object) {
  TraceOptions options;
  Fields fields(object);
  fields.read_choice<SchedulerPolicy>("policy", options.manager.scheduler_policy,
                                      {{"guaranteed_no_evict", SchedulerPolicy::kGuaranteedNoEvict},
                                       {"max_utilization", SchedulerPolicy::kMaxUtilization},
                                       {"static_batch", SchedulerPolicy::kStaticBatch}});
  fields.read("enable_kv_cache_reuse", options.manager.enable_kv_cache_reuse);
  fields.read("enable_chunked_context", options.manager.enable_chunked_context);
  fields.read("max_queue_size", options.manager.max_queue_size);
  fields.read("max_responses_per_second", options.manager.max_responses_per_second);
  fields.read("max_draft_tokens", options.manager.prompt_lookup.max_draft_tokens);
  fields.read("max_ngram", options.manager.prompt_lookup.max_ngram);
  fields.read("max_attention_windows", options.engine.max_attention_windows);
  fields.read("sink_tokens", options.engine.sink_tokens);
  fields.read("tokens_per_block", options.tokens_per_block);
  fields.read("num_blocks", options.num_blocks);
  fields.read("num_host_blocks", options.num_host_blocks);
  fields.read("max_batch_size", options.max_batch_size);
  fields.read("max_num_tokens", options.max_num_tokens);
  fields.read("copy_delay", options.copy_delay);
  fields.read("max_steps_in_flight", options.max_steps_in_flight);
  fields.end();
  return options;
}

void read_sampling(Fields& fields, SamplingConfig& sampling) {
  fields.read("top_k", sampling.top_k);
  fields.read("top_p", sampling.top_p);
  fields.read("temperature", sampling.temperature);
  fields.read("random_seed", sampling.random_seed);
  fields.read("top_p_decay", sampling.top_p_decay);
  fields.read("top_p_min", sampling.top_p_min);
  fields.read("top_p_reset_id", sampling.top_p_reset_id);
  fields.read("repetition_penalty", sampling.repetition_penalty);
  fields.read("presence_penalty", sampling.presence_penalty);
  fields.read("frequency_penalty", sampling.frequency_penalty);
  fields.read("min_length", sampling.min_length);
  fields.read("end_ids", sampling.end_ids);
  fields.read("return_log_probs", sampling.return_log_probs);
  std::optional<std::vector<float>> bias;
  fields.read("embedding_bias", bias);
  if (bias) sampling.embedding_bias = std::make_shared<const std::vector<float>>(std::move(*bias));
}

void read_beam_search(Fields& fields, BeamSearchConfig& config) {
  fields.read("beam_width", config.beam_width);
  fields.read("length_penalty", config.length_penalty);
  fields.read("diversity_rate", config.diversity_rate);
  fields.read_choice<EarlyStopping>(
      "early_stopping", config.early_stopping,
      {{"no", EarlyStopping::kNo}, {"yes", EarlyStopping::kYes}, {"never", EarlyStopping::kNever}});
}

void read_retention(const json& object, KvCacheRetention& retention) {
  Fields fields(object);
  for (const json& item : fields.object("ranges")) {
    Fields range_fields(item);
    RetentionRange& range = retention.ranges.emplace_back();
    range_fields.read("begin", range.begin);
    range_fields.read("end", range.end);
    range_fields.read("priority", range.priority);
    range_fields.read("duration_ms", range.duration);
    range_fields.end();
  }
  fields.read("decode_priority", retention.decode_priority);
  fields.read("decode_duration_ms", retention.decode_duration);
  fields.end();
}

void read_guide(Fields& fields, std::optional<GuidedDecoding>& guided) {
  const json& object = fields.object("guided_decoding");
  if (object.empty()) return;
  using Type = GuidedDecoding::Type;
  guided.emplace();
  Fields guide(object);
  guide.read_choice<Type>("type", guided->type,
                          {{"json", Type::kJson},
                           {"json_schema", Type::kJsonSchema},
                           {"regex", Type::kRegex},
                           {"grammar", Type::kGrammar},
                           {"choice", Type::kChoice}});
  guide.read("guide", guided->guide);
  guide.end();
}

TraceEvent read_event(const json& object) {
  TraceEvent event;
  Fields fields(object);
  fields.read("at", event.at);
  std::optional<size_t> cancel;
  std::optional<std::string> fail;
  bool stop = false;
  fields.read("cancel", cancel);
  fields.read("fail", fail);
  fields.read("stop", stop);
  const json& submit = fields.object("submit");
  fields.end();
  if (cancel) {
    event.action = Cancel{*cancel};
  } else if (fail) {
    event.action = Fault{*fail == "launch"};
  } else if (stop) {
    event.action = Stop{};
  } else {
    event.action = read_request(submit);
  }
  return event;
}

}  // namespace

TraceRequest read_request(const json& object) {
  TraceRequest result;
  Request& request = result.request;
  result.fields = object;
  Fields fields(object);
  fields.read("input_ids", request.input_ids);
  fields.read("max_new_tokens", request.max_new_tokens);
  read_sampling(fields, request.sampling);
  std::vector<std::vector<int32_t>> stop_words, bad_words;
  fields.read("stop_words", stop_words);
  fields.read("bad_words", bad_words);
  request.stop_words = stop_words;
  request.bad_words = bad_words;
  fields.read("streaming", request.streaming);
  fields.read("num_return_sequences", request.num_return_sequences);
  read_beam_search(fields, request.beam_search);
  fields.read("priority", request.priority);
  fields.read("draft_tokens", request.draft_tokens);
  read_guide(fields, request.guided_decoding);
  fields.read("return_context_logits", request.return_context_logits);
  fields.read("return_generation_logits", request.return_generation_logits);
  read_retention(fields.object("retention"), request.retention);
  fields.read("lora_task_id", request.lora_task_id);
  fields.read("prompt_extra_ids", request.prompt_extra_ids);
  fields.read("cancel_after", result.cancel_after);
  fields.read("is_cancelled_at", result.is_cancelled_at);
  fields.read("deadline_ms", result.deadline_ms);
  fields.read("num_true_drafts", result.num_true_drafts);
  fields.read("wrong_draft", result.wrong_draft);
  fields.end();
  return result;
}

Trace read_trace(const json& object) {
  Trace trace;
  Fields fields(object);
  trace.options = read_options(fields.object("options"));
  for (const json& event : fields.object("events")) trace.events.push_back(read_event(event));
  fields.end();
  return trace;
}

}  // namespace inflight::test
