#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "batch_manager/request.h"

namespace inflight::test {

// All that one sequence of a request was sent.
struct SequenceOutcome {
  std::vector<int32_t> tokens;
  std::vector<float> log_probs;
  float cum_log_prob = 0.0f;
  std::vector<float> generation_logits;
  std::shared_ptr<const std::vector<float>> context_logits;
  std::vector<Beam> beams;
  FinishReason finish_reason = FinishReason::kNone;
  int32_t num_responses = 0;
  bool is_final = false;
};

// All that one request was sent.
struct RequestOutcome {
  // Adds a response, and notes in `violations` what breaks the contract of request.h.
  void add(const Request& request, const Response& response, int32_t vocab_size);

  bool ended() const { return num_finals > 0; }
  bool has_failed() const { return error.has_value(); }
  // Of the first sequence, as far as it came.
  int32_t num_tokens() const { return sequences.empty() ? 0 : static_cast<int32_t>(sequences[0].tokens.size()); }

  std::vector<SequenceOutcome> sequences;
  int32_t num_finals = 0;
  std::optional<Error> error;
  std::vector<std::string> violations;
};

}  // namespace inflight::test
