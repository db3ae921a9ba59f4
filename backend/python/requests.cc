#include "python/requests.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <functional>
#include <map>
#include <string>
#include <type_traits>

#include "batch_manager/request.h"
#include "python/bindings.h"
#include "python/errors.h"

namespace nb = nanobind;

namespace inflight::python {
namespace {

using FieldSetter = std::function<void(SamplingConfig&, nb::handle)>;

template <class T>
FieldSetter setter(T SamplingConfig::*field) {
  return [field](SamplingConfig& config, nb::handle value) { config.*field = nb::cast<T>(value); };
}

const std::map<std::string, FieldSetter>& fields() {
  static const std::map<std::string, FieldSetter> setters = {
      {"top_k", setter(&SamplingConfig::top_k)},
      {"top_p", setter(&SamplingConfig::top_p)},
      {"temperature", setter(&SamplingConfig::temperature)},
      {"random_seed", setter(&SamplingConfig::random_seed)},
      {"repetition_penalty", setter(&SamplingConfig::repetition_penalty)},
      {"presence_penalty", setter(&SamplingConfig::presence_penalty)},
      {"frequency_penalty", setter(&SamplingConfig::frequency_penalty)},
      {"min_length", setter(&SamplingConfig::min_length)},
      {"end_ids", setter(&SamplingConfig::end_ids)},
      {"bad_words", setter(&SamplingConfig::bad_words)},
      {"return_log_probs", setter(&SamplingConfig::return_log_probs)},
  };
  return setters;
}

const char* finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone: return nullptr;
    case FinishReason::kEndId: return "end_id";
    case FinishReason::kStopWords: return "stop_words";
    case FinishReason::kLength: return "length";
    case FinishReason::kCancelled: return "cancelled";
  }
  return nullptr;
}

}  // namespace

SamplingConfig parse_sampling(const nb::kwargs& options) {
  SamplingConfig config;
  for (const auto& [key, value] : options) {
    const std::string name = nb::cast<std::string>(key);
    const auto field = fields().find(name);
    if (field == fields().end()) {
      std::string known;
      for (const auto& entry : fields()) known += (known.empty() ? "" : ", ") + entry.first;
      throw_error(ErrorCode::kInvalidArgument, "'", name, "' is no sampling option; there are ", known);
    }
    try {
      field->second(config, value);
    } catch (const nb::cast_error&) {
      throw_error(ErrorCode::kInvalidArgument, name, " is ", nb::repr(value).c_str(),
                  ", which is of the wrong type or out of its range");
    }
  }
  return config;
}

void bind_requests(nb::module_& module) {
  nb::class_<Response>(module, "Response", "Tokens generated since the last response of a request.")
      .def_ro("tokens", &Response::tokens)
      .def_ro("log_probs", &Response::log_probs, "Parallel to tokens with return_log_probs, else empty.")
      .def_ro("cum_log_prob", &Response::cum_log_prob, "Over all tokens generated up to here.")
      .def_ro("preceding_tokens", &Response::preceding_tokens, "The last 16 or fewer tokens generated before these.")
      .def_ro("is_final", &Response::is_final)
      .def_prop_ro(
          "finish_reason", [](const Response& response) { return finish_reason_name(response.finish_reason); },
          "None, 'end_id', 'stop_words', 'length' or 'cancelled'.")
      .def_prop_ro(
          "error",
          [](const Response& response) { return response.error ? to_python(*response.error) : nb::object(nb::none()); },
          "The InflightError that ended the request, or None.");
}

}  // namespace inflight::python
