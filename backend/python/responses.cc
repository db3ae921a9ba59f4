#include "python/responses.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>
#include <vector>

#include "python/bindings.h"
#include "python/errors.h"

namespace nb = nanobind;

namespace inflight::python {
namespace {

constexpr const char* kStopText = "With 'stop_words': which of stop_texts; -1: token ids, of stop_words.";
constexpr const char* kNumCutBytes =
    "With 'stop_words': bytes at the end of the text that are behind the stop text, "
    "or, with include_stop_str_in_output False, belong to it.";

struct PyResponse : Response {
  int32_t vocab_size;
};

using Logits = nb::ndarray<nb::numpy, const float, nb::ndim<2>>;

// A view of `values`, which live as long as `owner`.
Logits to_numpy(const std::vector<float>& values, int32_t vocab_size, nb::handle owner) {
  const auto columns = static_cast<size_t>(vocab_size);
  return {values.data(), {values.size() / columns, columns}, owner};
}

std::optional<Logits> context_logits(const PyResponse& response) {
  if (!response.context_logits) return std::nullopt;
  using Owner = std::shared_ptr<const std::vector<float>>;
  const nb::capsule owner(new Owner(response.context_logits),
                          [](void* pointer) noexcept { delete static_cast<Owner*>(pointer); });
  return to_numpy(*response.context_logits, response.vocab_size, owner);
}

std::optional<Logits> generation_logits(const PyResponse& response) {
  if (response.generation_logits.empty()) return std::nullopt;
  return to_numpy(response.generation_logits, response.vocab_size, nb::find(response));
}

// For each token, its most likely tokens: [(token, log-probability), …], best first.
nb::list top_log_probs(const PyResponse& response) {
  nb::list tokens;
  const size_t per_token = response.ranks.empty() ? 0 : response.top_log_probs.size() / response.ranks.size();
  for (size_t token = 0; token < response.ranks.size(); ++token) {
    nb::list entries;
    for (size_t i = token * per_token; i < (token + 1) * per_token; ++i) {
      entries.append(nb::make_tuple(response.top_log_probs[i].token, response.top_log_probs[i].log_prob));
    }
    tokens.append(entries);
  }
  return tokens;
}

}  // namespace

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

nb::object to_python(const Response& response, int32_t vocab_size) {
  PyResponse object{response, vocab_size};
  object.logits_memory.reset();  // from here on the logits are the caller's, who may keep them
  return nb::cast(std::move(object));
}

void bind_responses(nb::module_& module) {
  nb::class_<Beam>(module, "Beam", "One beam of a finished beam search.")
      .def_ro("tokens", &Beam::tokens, "Generated; without the end id.")
      .def_ro("log_probs", &Beam::log_probs, "Parallel to tokens.")
      .def_ro("cum_log_prob", &Beam::cum_log_prob, "Over the end id as well.")
      .def_prop_ro("finish_reason", [](const Beam& beam) { return finish_reason_name(beam.finish_reason); })
      .def_prop_ro(
          "stop_text", [](const Beam& beam) { return beam.stop.text; }, kStopText)
      .def_prop_ro("num_cut_bytes", [](const Beam& beam) { return beam.stop.num_cut_bytes; }, kNumCutBytes);
  nb::class_<PyResponse>(module, "Response", "What one of a request's sequences gained since its last response.")
      .def_ro("sequence_index", &PyResponse::sequence_index, "Below num_return_sequences; 0 with beam search.")
      .def_ro("tokens", &PyResponse::tokens)
      .def_ro("log_probs", &PyResponse::log_probs, "Parallel to tokens with return_log_probs, else empty.")
      .def_ro("ranks", &PyResponse::ranks, "Parallel to tokens with num_top_log_probs: 1 is the most likely.")
      .def_prop_ro("top_log_probs", top_log_probs,
                   "Parallel to tokens with num_top_log_probs: [(token, log-probability), …] each, best first.")
      .def_ro("cum_log_prob", &PyResponse::cum_log_prob, "Over all tokens generated up to here.")
      .def_ro("beams", &PyResponse::beams, "With beam search, in the last response: the best ones, best first.")
      .def_ro("preceding_tokens", &PyResponse::preceding_tokens, "The 16 or fewer tokens generated before these.")
      .def_prop_ro("context_logits", context_logits, nb::rv_policy::automatic,
                   "float32 [prompt, vocab_size] in the first response, with return_context_logits; else None.")
      .def_prop_ro("generation_logits", generation_logits, nb::rv_policy::automatic,
                   "float32 [tokens, vocab_size] with return_generation_logits, if there are tokens; else None.")
      .def_ro("kv_cache_alloc_total_blocks", &PyResponse::kv_cache_alloc_total_blocks,
              "Blocks of this sequence up to here.")
      .def_ro("kv_cache_reused_blocks", &PyResponse::kv_cache_reused_blocks, "Those that were in the cache already.")
      .def_ro("kv_cache_alloc_new_blocks", &PyResponse::kv_cache_alloc_new_blocks, "The others.")
      .def_ro("is_sequence_final", &PyResponse::is_sequence_final)
      .def_ro("is_final", &PyResponse::is_final, "The last response of the request.")
      .def_prop_ro(
          "finish_reason", [](const PyResponse& response) { return finish_reason_name(response.finish_reason); },
          "None, 'end_id', 'stop_words', 'length' or 'cancelled'.")
      .def_prop_ro(
          "stop_text", [](const PyResponse& response) { return response.stop.text; }, kStopText)
      .def_prop_ro(
          "num_cut_bytes", [](const PyResponse& response) { return response.stop.num_cut_bytes; }, kNumCutBytes)
      .def_prop_ro(
          "error",
          [](const PyResponse& response) {
            return response.error ? to_python(*response.error) : nb::object(nb::none());
          },
          "The InflightError that ended the request, or None.");
}

}  // namespace inflight::python
