#include "batch_manager/sequence.h"

#include <algorithm>
#include <span>
#include <utility>

#include "engine/token_words.h"

namespace inflight {

Sequence::Sequence(RequestId id, Request request_in, std::shared_ptr<ResponseChannel> channel)
    : id(id),
      request(std::move(request_in)),
      channel(std::move(channel)),
      prompt_length(static_cast<int32_t>(request.input_ids.size())) {
  tokens.reserve(request.input_ids.size() + request.max_new_tokens);
  tokens = request.input_ids;
}

void Sequence::accept(const SampledToken& sampled) {
  const auto& end_ids = request.sampling.end_ids;
  if (std::find(end_ids.begin(), end_ids.end(), sampled.token) != end_ids.end()) {
    finish_reason = FinishReason::kEndId;
    return;
  }
  tokens.push_back(sampled.token);
  if (request.sampling.return_log_probs) {
    log_probs.push_back(sampled.log_prob);
    cum_log_prob += sampled.log_prob;
  }
  const auto generated = std::span(tokens).subspan(prompt_length);
  const auto completed = [generated](const auto& word) { return ends_with(generated, word); };
  if (std::any_of(request.stop_words.begin(), request.stop_words.end(), completed)) {
    finish_reason = FinishReason::kStopWords;
  } else if (num_generated() == request.max_new_tokens) {
    finish_reason = FinishReason::kLength;
  }
}

}  // namespace inflight
