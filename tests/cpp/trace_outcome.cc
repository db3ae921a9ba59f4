#include "trace_outcome.h"

#include <algorithm>

namespace inflight::test {
namespace {

// What a stateless detokenizer is told about the tokens before a response's.
bool are_preceding(const std::vector<int32_t>& preceding, const std::vector<int32_t>& tokens) {
  return preceding.size() == std::min(tokens.size(), kPrecedingTokens) &&
         std::equal(preceding.rbegin(), preceding.rend(), tokens.rbegin());
}

template <class Values>
void append(Values& values, const Values& more) {
  values.insert(values.end(), more.begin(), more.end());
}

}  // namespace

void RequestOutcome::add(const Request& request, const Response& response, int32_t vocab_size) {
  const auto expect = [&](bool holds, const char* what) {
    if (!holds) violations.push_back(concat("response of sequence ", response.sequence_index, ": ", what));
  };
  expect(!ended(), "after the final one");
  if (response.is_final) ++num_finals;
  if (response.error) {
    expect(response.is_sequence_final, "an error that does not end its sequence");
    error = response.error;
  }
  const bool is_beam_search = request.beam_search.beam_width > 1;
  const int32_t num_sequences = is_beam_search ? 1 : request.num_return_sequences;
  if (response.sequence_index < 0 || response.sequence_index >= num_sequences) {
    expect(false, "no such sequence");
    return;
  }
  sequences.resize(num_sequences);
  SequenceOutcome& sequence = sequences[response.sequence_index];
  expect(!sequence.is_final, "its sequence had ended");
  expect(are_preceding(response.preceding_tokens, sequence.tokens), "wrong preceding_tokens");
  expect(request.streaming || sequence.num_responses == 0, "more than one without streaming");
  expect(response.kv_cache_reused_blocks + response.kv_cache_alloc_new_blocks == response.kv_cache_alloc_total_blocks,
         "reused and new blocks are not all");
  const size_t num_tokens = response.tokens.size();
  if (!is_beam_search) {
    expect(response.beams.empty(), "beams without beam search");
    expect(response.log_probs.size() == (request.sampling.return_log_probs ? num_tokens : 0), "number of log-probs");
    expect(response.generation_logits.size() == (request.return_generation_logits ? num_tokens * vocab_size : 0),
           "number of generation logits");
  }
  if (response.context_logits) {
    expect(request.return_context_logits && sequence.num_responses == 0, "unexpected context logits");
    expect(response.context_logits->size() == request.input_ids.size() * vocab_size, "number of context logits");
    sequence.context_logits = response.context_logits;
  }
  append(sequence.tokens, response.tokens);
  append(sequence.log_probs, response.log_probs);
  append(sequence.generation_logits, response.generation_logits);
  if (!response.beams.empty()) sequence.beams = response.beams;  // each response has all of them
  sequence.cum_log_prob = response.cum_log_prob;
  sequence.finish_reason = response.finish_reason;
  ++sequence.num_responses;
  if (response.is_sequence_final) {
    sequence.is_final = true;
    expect(response.error || response.finish_reason != FinishReason::kNone, "final without a reason");
  }
  if (response.is_final) {
    expect(std::ranges::all_of(sequences, &SequenceOutcome::is_final), "final before all sequences have ended");
  }
}

}  // namespace inflight::test
