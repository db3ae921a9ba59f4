#include "batch_manager/step_runner.h"

#include <algorithm>
#include <exception>
#include <unordered_set>
#include <utility>

#include "common/error.h"
#include "common/logging.h"

namespace inflight {

StepRunner::StepRunner(Engine& engine, Scheduler& scheduler, GuidedDecoder* guided_decoder,
                       const PromptLookupOptions& prompt_lookup)
    : engine_(engine), scheduler_(scheduler), guided_decoder_(guided_decoder), prompt_lookup_(prompt_lookup) {
  slices_.reserve(engine.info().max_batch_size);
  joined_tokens_.reserve(engine.info().max_num_tokens);
}

void StepRunner::start_copies() {
  const auto copies = scheduler_.kv_cache().take_copies();
  CopyHandle handle = 0;
  try {
    if (!copies.empty()) handle = engine_.copy_blocks(copies);
  } catch (const std::exception& failure) {
    lose_copies(copies, failure);
  }
  scheduler_.for_each_running([&](Sequence& sequence) {
    if (!sequence.is_onboarding) return;
    if (!sequence.onboarding) sequence.onboarding = handle;
    sequence.is_onboarding = !engine_.is_copied(*sequence.onboarding);
  });
}

void StepRunner::lose_copies(std::span<const BlockCopy> copies, const std::exception& failure) {
  scheduler_.kv_cache().forget(copies);
  std::unordered_set<int32_t> lost;
  for (const BlockCopy& copy : copies) lost.insert(copy.destination);
  const auto holds_lost = [&](const BlockList& list) {
    return std::ranges::any_of(list.block_ids, [&](int32_t block) { return lost.contains(block); });
  };
  scheduler_.for_each_running([&](Sequence& sequence) {
    const auto is_lost = [&](const BeamSlot& beam) { return holds_lost(beam.blocks); };
    if (holds_lost(sequence.blocks) || std::ranges::any_of(sequence.beams, is_lost)) fail(sequence, failure);
  });
}

void StepRunner::run(const std::vector<ScheduledChunk>& chunks) {
  try {
    slices_.clear();
    joined_tokens_.clear();
    in_step_.clear();
    for (const ScheduledChunk& chunk : chunks) add(chunk);
    if (in_step_.empty()) return;
    output_ = engine_.wait(engine_.submit({slices_, guided_decoder_}));
    ++counts_.steps;
    next_slice_ = next_token_ = next_top_log_prob_ = next_logit_ = 0;
    for (const ScheduledChunk* chunk : in_step_) take_output(*chunk);
  } catch (const Error& error) {
    fail(chunks, error);
  } catch (const std::exception& exception) {
    fail(chunks, Error(ErrorCode::kInternal, concat("the engine failed: ", exception.what())));
  }
}

// A step that fails ends the requests that were in it; the others go on.
void StepRunner::fail(const std::vector<ScheduledChunk>& chunks, const Error& error) {
  log_error("a step of ", chunks.size(), " sequences failed: ", error.what());
  for (const ScheduledChunk& chunk : chunks) {
    if (!chunk.sequence->is_finished()) chunk.sequence->state->error = error;
  }
}

// A sequence that cannot take part, for want of memory perhaps, fails alone.
void StepRunner::add(const ScheduledChunk& chunk) {
  if (chunk.sequence->is_finished()) return;  // its copies failed
  const size_t num_slices = slices_.size(), num_joined = joined_tokens_.size();
  try {
    configure(*chunk.sequence);
    add_slices(chunk);
    in_step_.push_back(&chunk);
  } catch (const std::exception& failure) {
    slices_.resize(num_slices);
    joined_tokens_.resize(num_joined);
    fail(*chunk.sequence, failure);
  }
}

void StepRunner::fail(Sequence& sequence, const std::exception& failure) {
  log_error("a sequence failed: ", failure.what());
  const auto* error = dynamic_cast<const Error*>(&failure);
  sequence.state->error = error ? *error : Error(ErrorCode::kInternal, concat("the request failed: ", failure.what()));
}

void StepRunner::configure(Sequence& sequence) {
  if (sequence.is_configured) return;
  const auto generated = std::span<const int32_t>(sequence.tokens).subspan(sequence.prompt_length);
  engine_.configure(sequence.slot, sequence.sampling(), sequence.request.input_ids, generated);
  if (sequence.state->guide) {
    std::vector<int32_t> end_ids = sequence.request.sampling.end_ids;
    std::erase(end_ids, -1);
    guided_decoder_->start(sequence.slot, sequence.state->guide->get(), generated, end_ids);
  } else if (guided_decoder_ != nullptr) {
    guided_decoder_->finish(sequence.slot);
  }
  reserve_logits(sequence);
  sequence.is_configured = true;
}

// Before the step, so that nobody else's fails where there is no memory.
void StepRunner::reserve_logits(Sequence& sequence) {
  const size_t vocab_size = engine_.info().vocab_size;
  sequence.context_logits.clear();
  if (sequence.returned_logits(/*samples=*/false) == ReturnedLogits::kAll) {
    sequence.context_logits.reserve(sequence.prompt_length * vocab_size);
  }
  if (sequence.request.return_generation_logits && !sequence.request.streaming) {
    sequence.generation_logits.reserve(sequence.request.max_new_tokens * vocab_size);
  }
}

void StepRunner::add_slices(const ScheduledChunk& chunk) {
  Sequence& sequence = *chunk.sequence;
  SequenceSlice slice;
  slice.past_length = sequence.num_cached;
  for (size_t beam = 0; beam < sequence.beams.size(); ++beam) {
    joined_tokens_.push_back(sequence.beam_search->generated(static_cast<int32_t>(beam)).back());
    slice.slot = sequence.beams[beam].slot;
    slice.tokens = std::span(&joined_tokens_.back(), 1);
    slice.block_ids = sequence.beams[beam].blocks.block_ids;
    slices_.push_back(slice);
  }
  if (!sequence.beams.empty()) return;

  slice.slot = sequence.slot;
  slice.tokens = std::span<const int32_t>(sequence.tokens).subspan(sequence.num_cached, chunk.num_tokens);
  if (chunk.num_drafts > 0) {
    const size_t begin = joined_tokens_.size();
    joined_tokens_.insert(joined_tokens_.end(), slice.tokens.begin(), slice.tokens.end());
    joined_tokens_.insert(joined_tokens_.end(), sequence.drafts.begin(), sequence.drafts.begin() + chunk.num_drafts);
    slice.tokens = std::span<const int32_t>(joined_tokens_).subspan(begin);
  }
  slice.block_ids = sequence.blocks.block_ids;
  slice.samples = chunk.num_tokens == sequence.num_uncached();
  slice.num_drafts = chunk.num_drafts;
  slice.is_masked = slice.samples && sequence.state->guide != nullptr;
  slice.returned_logits = sequence.returned_logits(slice.samples);
  slices_.push_back(slice);
}

void StepRunner::take_output(const ScheduledChunk& chunk) {
  const SequenceSlice& slice = slices_[next_slice_];
  const auto tokens = next_tokens(chunk);
  const auto top = next_top_log_probs(*chunk.sequence, chunk.sequence->is_beam_search() ? 0 : tokens.size());
  const auto logits = next_logits(slice, tokens.size());
  next_slice_ += std::max<size_t>(1, chunk.sequence->beams.size());
  try {
    take_logits(chunk, slice, tokens.size(), logits);
    take_output(chunk, tokens, top);
  } catch (const std::exception& failure) {
    fail(*chunk.sequence, failure);
  }
}

void StepRunner::take_output(const ScheduledChunk& chunk, std::span<const SampledToken> tokens,
                             std::span<const TokenLogProb> top) {
  Sequence& sequence = *chunk.sequence;
  if (chunk.is_context) counts_.context_tokens += chunk.num_tokens;
  sequence.num_cached += chunk.num_tokens;
  if (sequence.is_beam_search()) {
    scheduler_.commit(sequence);
    if (!tokens.empty()) take_candidates(sequence, tokens);
  } else {
    if (!tokens.empty()) take_tokens(chunk, tokens, top);
    scheduler_.commit(sequence);
  }
}

// What the step sampled for the chunk's slices.
std::span<const SampledToken> StepRunner::next_tokens(const ScheduledChunk& chunk) {
  const SequenceSlice& slice = slices_[next_slice_];
  size_t count = 0;
  if (slice.samples && chunk.sequence->is_beam_search()) {
    count = std::max<size_t>(1, chunk.sequence->beams.size()) * chunk.sequence->beam_search->num_candidates();
  } else if (slice.samples) {
    while (next_token_ + count < output_.tokens.size() && output_.tokens[next_token_ + count].slot == slice.slot) {
      ++count;
    }
    if (count == 0) throw_error(ErrorCode::kInternal, "the engine sampled no token for slot ", slice.slot);
  }
  if (next_token_ + count > output_.tokens.size()) {
    throw_error(ErrorCode::kInternal, "the engine returned ", output_.tokens.size(), " tokens, too few");
  }
  const auto tokens = std::span<const SampledToken>(output_.tokens).subspan(next_token_, count);
  next_token_ += count;
  return tokens;
}

std::span<const TokenLogProb> StepRunner::next_top_log_probs(const Sequence& sequence, size_t num_tokens) {
  const size_t count = num_tokens * sequence.num_top_log_probs();
  if (next_top_log_prob_ + count > output_.top_log_probs.size()) {
    throw_error(ErrorCode::kInternal, "the engine returned ", output_.top_log_probs.size(), " top log-probs, too few");
  }
  const auto top = std::span<const TokenLogProb>(output_.top_log_probs).subspan(next_top_log_prob_, count);
  next_top_log_prob_ += count;
  return top;
}

// top: [tokens, num_top_log_probs of the sequence].
void StepRunner::take_tokens(const ScheduledChunk& chunk, std::span<const SampledToken> tokens,
                             std::span<const TokenLogProb> top) {
  Sequence& sequence = *chunk.sequence;
  RequestState& state = *sequence.state;
  const int32_t before = sequence.num_generated();
  for (const SampledToken& token : tokens) {
    sequence.accept(token, top.first(sequence.num_top_log_probs()));
    top = top.subspan(sequence.num_top_log_probs());
    if (sequence.is_finished()) break;
    if (state.guide) guided_decoder_->accept(sequence.slot, token.token);
  }
  if (state.guide && sequence.finish_reason == FinishReason::kEndId) check_guide_end(sequence);
  const int32_t num_new = sequence.num_generated() - before;
  // All but the last token were drafts: their keys and values are there.
  sequence.num_cached += static_cast<int32_t>(tokens.size()) - 1;
  counts_.draft_tokens += chunk.num_drafts;
  counts_.accepted_draft_tokens += tokens.size() - 1;
  counts_.generated_tokens += num_new;
  state.num_generated += num_new;
  note_token(state);
  if (!sequence.is_finished()) look_up_drafts(sequence, num_new);
}

// Where the guide and the request's other options leave no token, the engine samples an end id; but then the text is
// not what was asked for.
void StepRunner::check_guide_end(Sequence& sequence) {
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

bool StepRunner::looks_up_drafts(const Sequence& sequence) const {
  const RequestState& state = *sequence.state;
  return prompt_lookup_.max_draft_tokens > 0 && state.request.num_draft_tokens.value_or(1) > 0 && !state.guide;
}

// The drafts of the next step. The prompt is read once for all sequences of a request.
void StepRunner::look_up_drafts(Sequence& sequence, int32_t num_new) {
  sequence.drafts.clear();
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

void StepRunner::note_token(RequestState& state) {
  state.last_token = RequestState::Clock::now();
  if (!state.first_token) state.first_token = state.last_token;
}

void StepRunner::take_candidates(Sequence& sequence, std::span<const SampledToken> candidates) {
  BeamSearch& search = *sequence.beam_search;
  counts_.generated_tokens += search.num_running();
  sequence.state->num_generated += search.num_running();
  note_token(*sequence.state);
  const auto choices = search.advance(candidates);
  if (search.is_finished()) {
    sequence.finish_reason = FinishReason::kLength;  // or another one: each beam has its own
    return;
  }
  scheduler_.reorder_beams(sequence, choices, [&](int32_t slot, int32_t beam) {
    engine_.configure(slot, sequence.sampling(), sequence.request.input_ids, search.generated(beam));
  });
}

// The rows of one slice.
std::span<const float> StepRunner::next_logits(const SequenceSlice& slice, size_t num_sampled) {
  const bool returns_sampled = slice.returned_logits == ReturnedLogits::kSampled;
  const size_t rows =
      returns_sampled ? std::min<size_t>(num_sampled, num_returned_logits(slice)) : num_returned_logits(slice);
  const size_t count = rows * engine_.info().vocab_size;
  if (next_logit_ + count > output_.logits.size()) {
    throw_error(ErrorCode::kInternal, "the engine returned ", output_.logits.size(), " logits, too few");
  }
  const auto logits = output_.logits.subspan(next_logit_, count);
  next_logit_ += count;
  return logits;
}

void StepRunner::take_logits(const ScheduledChunk& chunk, const SequenceSlice& slice, size_t num_sampled,
                             std::span<const float> logits) {
  Sequence& sequence = *chunk.sequence;
  const size_t vocab_size = engine_.info().vocab_size;
  std::span<const float> sampled = logits;
  if (slice.returned_logits == ReturnedLogits::kAll) {
    const auto context = logits.first(chunk.num_tokens * vocab_size);
    sequence.context_logits.insert(sequence.context_logits.end(), context.begin(), context.end());
    if (!slice.samples) return;
    sequence.state->context_logits =
        std::make_shared<const std::vector<float>>(std::exchange(sequence.context_logits, {}));
    sampled = logits.subspan((chunk.num_tokens - 1) * vocab_size, num_sampled * vocab_size);
  }
  if (sequence.request.return_generation_logits) {
    sequence.generation_logits.insert(sequence.generation_logits.end(), sampled.begin(), sampled.end());
  }
}

}  // namespace inflight
