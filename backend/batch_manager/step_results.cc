#include "batch_manager/step_results.h"

#include <algorithm>
#include <utility>

#include "common/error.h"
#include "common/logging.h"

namespace inflight {

StepResults::StepResults(const EngineInfo& info, Scheduler& scheduler, GuidedDecoder* guided_decoder,
                         const PromptLookupOptions& prompt_lookup)
    : vocab_size_(info.vocab_size),
      scheduler_(scheduler),
      guided_decoder_(guided_decoder),
      prompt_lookup_(prompt_lookup) {
  sequences_.reserve(info.max_batch_size);
}

void StepResults::take(const StepInFlight& step, const StepOutput& output, RequestState::Clock::time_point now) {
  ++counts_.steps;
  output_ = output;
  now_ = now;
  next_token_ = next_top_log_prob_ = next_logit_ = 0;
  sequences_.clear();
  size_t next_slot = 0;
  for (const SequenceInFlight& in_flight : step.sequences) {
    const auto slots = std::span(step.slots).subspan(next_slot, in_flight.num_slices);
    next_slot += slots.size();
    const Share share = next_share(in_flight, slots);
    Sequence* const sequence = sequence_of(in_flight);
    if (sequence == nullptr) continue;
    try {
      if (share.failure != nullptr) throw share.failure->error;
      take(*sequence, in_flight, share);
    } catch (const std::exception& failure) {
      sequence->fail(failure);
    }
  }
}

void StepResults::fail(const StepInFlight& step, const Error& error) {
  log_error("a step of ", step.slots.size(), " sequences failed: ", error.what());
  sequences_.clear();
  for (const SequenceInFlight& in_flight : step.sequences) {
    if (Sequence* const sequence = sequence_of(in_flight)) sequence->state->error = error;
  }
}

// Null if it has ended or paused. What is in flight of it is less now.
Sequence* StepResults::sequence_of(const SequenceInFlight& in_flight) {
  Sequence* const sequence = scheduler_.find(in_flight.slot, in_flight.run);
  if (sequence == nullptr || sequence->is_finished()) return nullptr;
  sequence->num_launched -= in_flight.num_processed();
  sequence->num_expected -= in_flight.num_expected();
  sequences_.push_back(sequence);
  return sequence;
}

void StepResults::take(Sequence& sequence, const SequenceInFlight& in_flight, const Share& share) {
  take_logits(sequence, in_flight, share);
  if (in_flight.is_context) counts_.context_tokens += in_flight.num_tokens;
  sequence.num_cached += in_flight.num_tokens;
  if (sequence.is_beam_search()) {
    scheduler_.commit(sequence);
    if (!share.tokens.empty()) take_candidates(sequence, share.tokens);
  } else {
    if (!share.tokens.empty()) take_tokens(sequence, in_flight, share);
    scheduler_.commit(sequence);
  }
}

StepResults::Share StepResults::next_share(const SequenceInFlight& in_flight, std::span<const int32_t> slots) {
  Share share;
  int32_t num_slices = in_flight.num_slices;
  for (const SlotFailure& failure : output_.failures) {
    if (std::ranges::find(slots, failure.slot) == slots.end()) continue;
    share.failure = &failure;
    --num_slices;
  }
  if (num_slices == 0) return share;
  share.tokens = next_tokens(in_flight, num_slices);
  share.top_log_probs = next_top_log_probs(share.tokens.size() * in_flight.num_top_log_probs);
  share.logits = next_logits(in_flight, share.tokens.size());
  return share;
}

// What the step sampled for the sequence's slices.
std::span<const SampledToken> StepResults::next_tokens(const SequenceInFlight& in_flight, int32_t num_slices) {
  size_t count = 0;
  if (in_flight.samples && in_flight.num_candidates > 0) {
    count = static_cast<size_t>(num_slices) * in_flight.num_candidates;
  } else if (in_flight.samples) {
    while (next_token_ + count < output_.tokens.size() && output_.tokens[next_token_ + count].slot == in_flight.slot) {
      ++count;
    }
    if (count == 0) throw_error(ErrorCode::kInternal, "the engine sampled no token for slot ", in_flight.slot);
  }
  if (next_token_ + count > output_.tokens.size()) {
    throw_error(ErrorCode::kInternal, "the engine returned ", output_.tokens.size(), " tokens, too few");
  }
  const auto tokens = output_.tokens.subspan(next_token_, count);
  next_token_ += count;
  return tokens;
}

std::span<const TokenLogProb> StepResults::next_top_log_probs(size_t count) {
  if (next_top_log_prob_ + count > output_.top_log_probs.size()) {
    throw_error(ErrorCode::kInternal, "the engine returned ", output_.top_log_probs.size(), " top log-probs, too few");
  }
  const auto top = output_.top_log_probs.subspan(next_top_log_prob_, count);
  next_top_log_prob_ += count;
  return top;
}

// The rows of one slice. (Beams return none.)
std::span<const float> StepResults::next_logits(const SequenceInFlight& in_flight, size_t num_sampled) {
  size_t rows = 0;
  if (in_flight.returned_logits == ReturnedLogits::kAll) {
    rows = in_flight.num_processed();
  } else if (in_flight.returned_logits == ReturnedLogits::kSampled) {
    rows = in_flight.num_candidates > 0 ? 1 : num_sampled;
  }
  const size_t count = rows * vocab_size_;
  if (next_logit_ + count > output_.logits.size()) {
    throw_error(ErrorCode::kInternal, "the engine returned ", output_.logits.size(), " logits, too few");
  }
  const auto logits = output_.logits.subspan(next_logit_, count);
  next_logit_ += count;
  return logits;
}

// share.top_log_probs: [tokens, num_top_log_probs of the sequence].
void StepResults::take_tokens(Sequence& sequence, const SequenceInFlight& in_flight, const Share& share) {
  RequestState& state = *sequence.state;
  const int32_t before = sequence.num_generated();
  auto top = share.top_log_probs;
  for (const SampledToken& token : share.tokens) {
    sequence.accept(token, top.first(in_flight.num_top_log_probs));
    top = top.subspan(in_flight.num_top_log_probs);
    if (sequence.is_finished()) break;
    if (state.guide) guided_decoder_->accept(sequence.slot, token.token);
  }
  if (state.guide && sequence.finish_reason == FinishReason::kEndId) check_guide_end(sequence);
  const int32_t num_new = sequence.num_generated() - before;
  const int32_t num_accepted = static_cast<int32_t>(share.tokens.size()) - 1;
  sequence.num_cached += num_accepted;  // keys and values of drafts are there
  counts_.draft_tokens += in_flight.num_drafts;
  counts_.accepted_draft_tokens += num_accepted;
  sequence.perf_metrics.draft_tokens += in_flight.num_drafts;
  sequence.perf_metrics.accepted_draft_tokens += num_accepted;
  counts_.generated_tokens += num_new;
  state.num_generated += num_new;
  note_token(sequence);
  if (!sequence.is_finished()) look_up_drafts(sequence, num_new);
}

// Where the guide and the request's other options leave no token, the engine samples an end id; but then the text is
// not what was asked for.
void StepResults::check_guide_end(Sequence& sequence) {
  const int32_t min_length = sequence.request.sampling.min_length;
  try {
    if (!guided_decoder_->may_end(sequence.slot)) {
      throw_error(ErrorCode::kInvalidArgument,
                  "guided_decoding: no token continues the text: bad words or the embedding bias forbid what the guide "
                  "allows; change them or the guide");
    }
    if (sequence.num_generated() < min_length) {
      throw_error(ErrorCode::kInvalidArgument, "guided_decoding: the text is complete after ", sequence.num_generated(),
                  " tokens and cannot go on; min_length is ", min_length,
                  ": lower it, or let the guide have longer texts");
    }
  } catch (const Error& error) {
    sequence.state->error = error;
  }
}

bool StepResults::looks_up_drafts(const Sequence& sequence) const {
  const RequestState& state = *sequence.state;
  return prompt_lookup_.max_draft_tokens > 0 && state.request.num_draft_tokens.value_or(1) > 0 && !state.guide;
}

// The drafts of the next step. The prompt is read once for all sequences of a request.
void StepResults::look_up_drafts(Sequence& sequence, int32_t num_new) {
  if (!looks_up_drafts(sequence)) return;
  if (!sequence.prompt_lookup) {
    auto& of_prompt = sequence.state->prompt_lookup;
    if (!of_prompt) of_prompt.emplace(prompt_lookup_.max_ngram).append(sequence.request.input_ids);
    sequence.prompt_lookup = of_prompt;
  }
  sequence.prompt_lookup->append(std::span<const int32_t>(sequence.tokens).last(num_new));
  const int32_t max_drafts = prompt_lookup_.max_draft_tokens;
  const int32_t wanted = sequence.request.num_draft_tokens.value_or(max_drafts);
  const auto drafts = sequence.prompt_lookup->draft(std::min({wanted, max_drafts, sequence.max_drafts()}));
  sequence.drafts.assign(drafts.begin(), drafts.end());
}

void StepResults::note_token(Sequence& sequence) const {
  RequestState& state = *sequence.state;
  PerfMetrics& perf_metrics = sequence.perf_metrics;
  perf_metrics.last_token = state.last_token = now_;
  if (!state.first_token) state.first_token = state.last_token;
  if (perf_metrics.first_token == PerfMetrics::TimePoint()) perf_metrics.first_token = state.last_token;
}

void StepResults::take_candidates(Sequence& sequence, std::span<const SampledToken> candidates) {
  BeamSearch& search = *sequence.beam_search;
  counts_.generated_tokens += search.num_running();
  sequence.state->num_generated += search.num_running();
  note_token(sequence);
  const auto choices = search.advance(candidates);
  if (search.is_finished()) {
    sequence.finish_reason = FinishReason::kLength;  // or another one: each beam has its own
  } else {
    scheduler_.reorder_beams(sequence, choices);
  }
}

void StepResults::take_logits(Sequence& sequence, const SequenceInFlight& in_flight, const Share& share) {
  std::span<const float> sampled = share.logits;
  if (in_flight.returned_logits == ReturnedLogits::kAll) {
    const auto context = share.logits.first(in_flight.num_tokens * vocab_size_);
    sequence.context_logits.insert(sequence.context_logits.end(), context.begin(), context.end());
    if (!in_flight.samples) return;
    sequence.state->context_logits =
        std::make_shared<const std::vector<float>>(std::exchange(sequence.context_logits, {}));
    sampled = share.logits.subspan((in_flight.num_tokens - 1) * vocab_size_, share.tokens.size() * vocab_size_);
  }
  if (sequence.request.return_generation_logits) {
    sequence.generation_logits.insert(sequence.generation_logits.end(), sampled.begin(), sampled.end());
  }
}

}  // namespace inflight
