#include "batch_manager/sequence.h"

#include <algorithm>
#include <utility>

namespace inflight {
namespace {

bool ends_with(const std::vector<int32_t>& tokens, int32_t begin, const std::vector<int32_t>& word) {
  if (word.empty() || static_cast<int64_t>(tokens.size()) - begin < static_cast<int64_t>(word.size())) return false;
  return std::equal(word.rbegin(), word.rend(), tokens.rbegin());
}

}  // namespace

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
  const auto completed = [this](const auto& word) { return ends_with(tokens, prompt_length, word); };
  if (std::any_of(request.stop_words.begin(), request.stop_words.end(), completed)) {
    finish_reason = FinishReason::kStopWords;
  } else if (num_generated() == request.max_new_tokens) {
    finish_reason = FinishReason::kLength;
  }
}

}  // namespace inflight
