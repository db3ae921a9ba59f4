#include "batch_manager/step_runner.h"

#include <algorithm>
#include <exception>
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
  const CopyHandle handle = copies.empty() ? 0 : engine_.copy_blocks(copies);
  scheduler_.for_each_running([&](Sequence& sequence) {
    if (!sequence.is_onboarding) return;
    if (!sequence.onboarding) sequence.onboarding = handle;
    sequence.is_onboarding = !engine_.is_copied(*sequence.onboarding);
  });
}

void StepRunner::run(const std::vector<ScheduledChunk>& chunks) {
  try {
    slices_.clear();
    joined_tokens_.clear();
    for (const ScheduledChunk& chunk : chunks) {
      configure(*chunk.sequence);
      add_slices(chunk);
    }
    output_ = engine_.wait(engine_.submit({slices_, guided_decoder_}));
    ++counts_.steps;
    next_slice_ = next_token_ = next_top_log_prob_ = next_logit_ = 0;
    for (const ScheduledChunk& chunk : chunks) take_output(chunk);
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
  sequence.context_logits.clear();
  sequence.is_configured = true;
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
  if (sequence.request.return_context_logits && sequence.state->context_logits == nullptr) {
    slice.returned_logits = ReturnedLogits::kAll;
  } else if (sequence.request.return_generation_logits && slice.samples) {
    slice.returned_logits = ReturnedLogits::kSampled;
  }
  slices_.push_back(slice);
}

void StepRunner::take_output(const ScheduledChunk& chunk) {
  Sequence& sequence = *chunk.sequence;
  if (chunk.is_context) counts_.context_tokens += chunk.num_tokens;
  const auto tokens = next_tokens(chunk);
  take_logits(chunk, tokens.size());
  next_slice_ += std::max<size_t>(1, sequence.beams.size());
  sequence.num_cached += chunk.num_tokens;
  if (sequence.is_beam_search()) {
    scheduler_.commit(sequence);
    if (!tokens.empty()) take_candidates(sequence, tokens);
  } else {
    if (!tokens.empty()) take_tokens(chunk, tokens, next_top_log_probs(sequence, tokens.size()));
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

// A guide that came to a dead end allows end ids alone, too; but then the text is not what was asked for.
void StepRunner::check_guide_end(Sequence& sequence) {
  try {
    guided_decoder_->is_terminated(sequence.slot);
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

void StepRunner::take_logits(const ScheduledChunk& chunk, size_t num_sampled) {
  Sequence& sequence = *chunk.sequence;
  const SequenceSlice& slice = slices_[next_slice_];
  const size_t vocab_size = engine_.info().vocab_size;
  std::span<const float> sampled;
  if (slice.returned_logits == ReturnedLogits::kSampled) {
    sampled = next_logits(num_sampled);
  } else if (slice.returned_logits == ReturnedLogits::kAll) {
    const auto all = next_logits(slice.tokens.size());
    const auto context = all.first(chunk.num_tokens * vocab_size);
    auto& logits = sequence.context_logits;
    if (logits.empty()) logits.reserve(sequence.prompt_length * vocab_size);
    logits.insert(logits.end(), context.begin(), context.end());
    if (slice.samples) {
      sequence.state->context_logits = std::make_shared<const std::vector<float>>(std::exchange(logits, {}));
      sampled = all.subspan((chunk.num_tokens - 1) * vocab_size, num_sampled * vocab_size);
    }
  }
  if (sequence.request.return_generation_logits && !sampled.empty()) {
    sequence.generation_logits.insert(sequence.generation_logits.end(), sampled.begin(), sampled.end());
  }
}

std::span<const float> StepRunner::next_logits(size_t rows) {
  const size_t count = rows * engine_.info().vocab_size;
  if (next_logit_ + count > output_.logits.size()) {
    throw_error(ErrorCode::kInternal, "the engine returned ", output_.logits.size(), " logits, too few");
  }
  const auto logits = std::span<const float>(output_.logits).subspan(next_logit_, count);
  next_logit_ += count;
  return logits;
}

}  // namespace inflight
