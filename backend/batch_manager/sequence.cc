#include "batch_manager/sequence.h"

#include <algorithm>
#include <span>
#include <utility>

namespace inflight {

Sequence::Sequence(std::shared_ptr<RequestState> state_in, int32_t index, int32_t vocab_size)
    : state(std::move(state_in)),
      request(state->request),
      words(state->words->get()),
      index(index),
      channel(std::make_shared<ResponseChannel>(state->receiver, index)),
      prompt_length(static_cast<int32_t>(request.input_ids.size())),
      vocab_size(vocab_size),
      drafts(request.draft_tokens) {
  tokens.reserve(request.input_ids.size() + request.max_new_tokens);
  tokens = request.input_ids;
  if (request.beam_search.beam_width > 1) {
    const auto& end_ids = request.sampling.end_ids;
    beam_search = std::make_unique<BeamSearch>(
        request.beam_search, request.max_new_tokens, end_ids,
        BeamSearch::num_candidates(request.beam_search.beam_width, end_ids, request.stop_words), words);
  }
}

void Sequence::accept(const SampledToken& sampled, std::span<const TokenLogProb> top) {
  const auto& end_ids = request.sampling.end_ids;
  if (std::find(end_ids.begin(), end_ids.end(), sampled.token) != end_ids.end()) {
    finish_reason = FinishReason::kEndId;
    return;
  }
  tokens.push_back(sampled.token);
  if (request.sampling.return_log_probs) {
    log_probs.push_back(sampled.log_prob);
    cum_log_prob += sampled.log_prob;
    if (request.sampling.num_top_log_probs) ranks.push_back(sampled.rank);
    top_log_probs.insert(top_log_probs.end(), top.begin(), top.end());
  }
  const WordAutomaton& stop_words = words->stop_words;
  stop_word_beginning = stop_words.next(stop_word_beginning, sampled.token);
  if (stop_words.longest_word(stop_word_beginning) != WordAutomaton::kNone) {
    finish_reason = FinishReason::kStopWords;
  } else if (num_generated() == request.max_new_tokens) {
    finish_reason = FinishReason::kLength;
  }
}

ReturnedLogits Sequence::returned_logits(bool samples) const {
  if (request.return_context_logits && state->context_logits == nullptr) return ReturnedLogits::kAll;
  return request.return_generation_logits && samples ? ReturnedLogits::kSampled : ReturnedLogits::kNone;
}

SamplingConfig Sequence::sampling() const {
  SamplingConfig sampling = request.sampling;
  sampling.bad_words = words->bad_words;
  sampling.random_seed += static_cast<uint64_t>(index);
  if (is_beam_search()) sampling.num_candidates = beam_search->num_candidates();
  return sampling;
}

PrefixKey Sequence::cached_key() const {
  return {std::span(tokens).first(std::min<size_t>(num_cached, tokens.size())), request.lora_task_id,
          request.prompt_extra_ids};
}

}  // namespace inflight
