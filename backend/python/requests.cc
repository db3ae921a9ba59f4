#include "python/requests.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>

#include <chrono>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "python/keyword_arguments.h"

namespace nb = nanobind;

namespace inflight::python {
namespace {

using std::chrono::milliseconds;

constexpr double kMaxTimeoutSeconds = 1e9;

template <class T>
auto sampling(T SamplingConfig::* field) {
  return setter(&Request::sampling, field);
}

template <class T>
auto beam_search(T BeamSearchConfig::* field) {
  return setter(&Request::beam_search, field);
}

auto words(WordList Request::* field) {
  return [field](Request& request, const std::string& name, nb::handle value) {
    request.*field = WordList(argument<std::vector<std::vector<int32_t>>>(name, value));
  };
}

std::shared_ptr<const std::vector<float>> to_bias(const std::string& name, nb::handle value) {
  if (value.is_none()) return nullptr;
  using Array = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
  if (Array array; nb::try_cast(value, array)) {
    return std::make_shared<const std::vector<float>>(array.data(), array.data() + array.size());
  }
  return std::make_shared<const std::vector<float>>(
      argument<std::vector<float>>(name, value, "None or an array of float32 [vocab_size]"));
}

EarlyStopping to_early_stopping(const std::string& name, nb::handle value) {
  if (bool stops; nb::try_cast(value, stops)) return stops ? EarlyStopping::kYes : EarlyStopping::kNo;
  if (std::string text; nb::try_cast(value, text) && text == "never") return EarlyStopping::kNever;
  refuse(name, value, "True, False or 'never'");
}

std::optional<std::chrono::steady_clock::time_point> to_deadline(const std::string& name, nb::handle value) {
  constexpr const char* kAllowed = "None or a number of seconds above 0, at most 1e9";
  if (value.is_none()) return std::nullopt;
  const auto seconds = argument<double>(name, value, kAllowed);
  if (!(seconds > 0 && seconds <= kMaxTimeoutSeconds)) refuse(name, value, kAllowed);
  using Clock = std::chrono::steady_clock;
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

std::optional<GuidedDecoding> to_guided_decoding(const std::string& name, nb::handle value) {
  static const std::map<std::string, GuidedDecoding::Type> types = {{"json", GuidedDecoding::Type::kJson},
                                                                    {"json_schema", GuidedDecoding::Type::kJsonSchema},
                                                                    {"regex", GuidedDecoding::Type::kRegex},
                                                                    {"grammar", GuidedDecoding::Type::kGrammar},
                                                                    {"choice", GuidedDecoding::Type::kChoice}};
  constexpr const char* kAllowed =
      "None or (type, guide), two strings: the type is json, json_schema, regex, grammar or choice";
  if (value.is_none()) return std::nullopt;
  auto [type_name, guide] = argument<std::pair<std::string, std::string>>(name, value, kAllowed);
  const auto type = types.find(type_name);
  if (type == types.end()) refuse(name, value, kAllowed);
  return GuidedDecoding{type->second, std::move(guide)};
}

std::optional<milliseconds> to_duration(std::optional<int64_t> count) {
  return count ? std::optional(milliseconds(*count)) : std::nullopt;
}

std::vector<RetentionRange> to_retention_ranges(const std::string& name, nb::handle value) {
  using Range = std::tuple<int32_t, std::optional<int32_t>, int32_t, std::optional<int64_t>>;
  std::vector<RetentionRange> ranges;
  for (const auto& [begin, end, priority, duration] : argument<std::vector<Range>>(
           name, value, "a list of (begin, end or None, priority, duration in milliseconds or None)")) {
    ranges.push_back({begin, end, priority, to_duration(duration)});
  }
  return ranges;
}

const KeywordArguments<Request>& request_arguments() {
  static const KeywordArguments<Request> arguments(
      "request option",
      {
          {"stop_words", words(&Request::stop_words)},
          {"stop_texts", setter(&Request::stop_texts, &StopTexts::texts)},
          {"include_stop_str_in_output", setter(&Request::stop_texts, &StopTexts::include_in_output)},
          {"skip_special_tokens", setter(&Request::stop_texts, &StopTexts::skip_special_tokens)},
          {"stop_min_tokens", setter(&Request::stop_texts, &StopTexts::min_tokens)},
          {"bad_words", words(&Request::bad_words)},
          {"streaming", setter(&Request::streaming)},
          {"num_return_sequences", setter(&Request::num_return_sequences)},
          {"priority", setter(&Request::priority)},
          {"timeout",
           [](Request& request, const auto& name, nb::handle value) { request.deadline = to_deadline(name, value); }},
          {"draft_tokens", setter(&Request::draft_tokens)},
          {"num_draft_tokens", setter(&Request::num_draft_tokens)},
          {"guided_decoding", [](Request& request, const auto& name,
                                 nb::handle value) { request.guided_decoding = to_guided_decoding(name, value); }},
          {"return_context_logits", setter(&Request::return_context_logits)},
          {"return_generation_logits", setter(&Request::return_generation_logits)},
          {"lora_task_id", setter(&Request::lora_task_id)},
          {"prompt_extra_ids", setter(&Request::prompt_extra_ids)},

          {"beam_width", beam_search(&BeamSearchConfig::beam_width)},
          {"length_penalty", beam_search(&BeamSearchConfig::length_penalty)},
          {"early_stopping",
           [](Request& request, const auto& name, nb::handle value) {
             request.beam_search.early_stopping = to_early_stopping(name, value);
           }},
          {"beam_search_diversity_rate", beam_search(&BeamSearchConfig::diversity_rate)},

          {"retention_ranges", [](Request& request, const auto& name,
                                  nb::handle value) { request.retention.ranges = to_retention_ranges(name, value); }},
          {"retention_decode_priority", setter(&Request::retention, &KvCacheRetention::decode_priority)},
          {"retention_decode_duration_ms",
           [](Request& request, const auto& name, nb::handle value) {
             request.retention.decode_duration = to_duration(argument<std::optional<int64_t>>(name, value));
           }},

          {"top_k", sampling(&SamplingConfig::top_k)},
          {"top_p", sampling(&SamplingConfig::top_p)},
          {"min_p", sampling(&SamplingConfig::min_p)},
          {"temperature", sampling(&SamplingConfig::temperature)},
          {"random_seed", sampling(&SamplingConfig::random_seed)},
          {"top_p_decay", sampling(&SamplingConfig::top_p_decay)},
          {"top_p_min", sampling(&SamplingConfig::top_p_min)},
          {"top_p_reset_id", sampling(&SamplingConfig::top_p_reset_id)},
          {"repetition_penalty", sampling(&SamplingConfig::repetition_penalty)},
          {"presence_penalty", sampling(&SamplingConfig::presence_penalty)},
          {"frequency_penalty", sampling(&SamplingConfig::frequency_penalty)},
          {"min_length", sampling(&SamplingConfig::min_length)},
          {"end_ids", sampling(&SamplingConfig::end_ids)},
          {"embedding_bias", [](Request& request, const auto& name,
                                nb::handle value) { request.sampling.embedding_bias = to_bias(name, value); }},
          {"return_log_probs", sampling(&SamplingConfig::return_log_probs)},
          {"num_top_log_probs", sampling(&SamplingConfig::num_top_log_probs)},
      });
  return arguments;
}

}  // namespace

Request parse_request(nb::handle input_ids, nb::handle max_new_tokens, const nb::kwargs& options) {
  Request request;
  request.input_ids = argument<std::vector<int32_t>>("input_ids", input_ids);
  request.max_new_tokens = argument<int32_t>("max_new_tokens", max_new_tokens);
  request_arguments().read(request, options);
  return request;
}

}  // namespace inflight::python
