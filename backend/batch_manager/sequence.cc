#include "batch_manager/sequence.h"

#include <algorithm>
#include <numeric>
#include <span>
#include <utility>

#include "common/error.h"
#include "common/logging.h"

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
  perf_metrics.arrival = state->submitted;
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
    return finish(FinishReason::kEndId);
  }
  tokens.push_back(sampled.token);
  if (request.sampling.return_log_probs) {
    log_probs.push_back(sampled.log_prob);
    if (request.sampling.num_top_log_probs) ranks.push_back(sampled.rank);
    top_log_probs.insert(top_log_probs.end(), top.begin(), top.end());
  }
  if (const auto match = words->stop_words.advance(stop_progress, sampled.token)) {
    finish_reason = FinishReason::kStopWords;
    stop = *match;
  } else if (num_generated() == request.max_new_tokens) {
    finish(FinishReason::kLength);
  } else if (words->stop_words.holds_text_back()) {
    hold_back();
  }
}

void Sequence::fail(const std::exception& failure) {
  log_error("a sequence failed: ", failure.what());
  const auto* error = dynamic_cast<const Error*>(&failure);
  state->error = error ? *error : Error(ErrorCode::kInternal, concat("the request failed: ", failure.what()));
}

void Sequence::finish(FinishReason reason) {
  const auto match = words->stop_words.finish(stop_progress);
  finish_reason = match ? FinishReason::kStopWords : reason;
  if (match) stop = *match;
}

void Sequence::hold_back() {
  held_back.push_back(stop_progress.length);
  const int64_t sure = words->stop_words.num_sure_bytes(stop_progress);
  while (!held_back.empty() && held_back.front() <= sure) held_back.pop_front();
}

void Sequence::take_sendable(Response& response) {
  const int32_t end = num_sendable();
  const auto tokens_begin = tokens.begin() + prompt_length;
  response.tokens.assign(tokens_begin + num_sent, tokens_begin + end);
  if (request.sampling.return_log_probs) {
    response.log_probs.assign(log_probs.begin() + num_sent, log_probs.begin() + end);
    if (const int64_t num_top = request.sampling.num_top_log_probs.value_or(-1); num_top >= 0) {
      const auto top = top_log_probs.begin();
      response.ranks.assign(ranks.begin() + num_sent, ranks.begin() + end);
      response.top_log_probs.assign(top + num_sent * num_top, top + end * num_top);
    }
    cum_log_prob = std::accumulate(response.log_probs.begin(), response.log_probs.end(), cum_log_prob);
  }
  response.cum_log_prob = cum_log_prob;
  const size_t num_logits = std::min(generation_logits.size(), response.tokens.size() * vocab_size);
  const std::vector<float> held_logits(generation_logits.begin() + static_cast<std::ptrdiff_t>(num_logits),
                                       generation_logits.end());
  generation_logits.resize(num_logits);
  response.generation_logits = std::exchange(generation_logits, held_logits);
  num_sent = end;
}

ReturnedLogits Sequence::returned_logits(bool samples) const {
  const bool is_in_prompt = next_position() < prompt_length;
  if (request.return_context_logits && state->context_logits == nullptr && is_in_prompt) return ReturnedLogits::kAll;
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
