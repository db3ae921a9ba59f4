#include "triton/response/stream_history.h"

namespace inflight::triton {

Response StreamHistory::add_to(Response response, size_t batch_index) {
  const bool says_something = !response.log_probs.empty() || response.context_logits != nullptr;
  if (!says_something && said_.empty()) return response;
  Said& said = said_[{batch_index, response.sequence_index}];
  said.log_probs.insert(said.log_probs.end(), response.log_probs.begin(), response.log_probs.end());
  response.log_probs = said.log_probs;
  if (response.context_logits != nullptr) {
    said.context_logits = response.context_logits;
  } else if (said.context_logits != nullptr) {
    num_repeated_ += said.context_logits->size();
    if (response.is_sequence_final || num_repeated_ <= kMaxRepeatedLogits)
      response.context_logits = said.context_logits;
  }
  return response;
}

}  // namespace inflight::triton
