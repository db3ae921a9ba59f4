#include "batch_manager/step_launcher.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "common/error.h"
#include "common/logging.h"

namespace inflight {
namespace {

// An idle engine waits for masks as long as this, where there is nothing else to run; else a part of the last step.
constexpr std::chrono::milliseconds kMaskPatience{5};
constexpr int kPartOfStep = 8;

}  // namespace

StepLauncher::StepLauncher(Engine& engine, Scheduler& scheduler, GuidedDecoder* guided_decoder)
    : engine_(engine),
      scheduler_(scheduler),
      guided_decoder_(guided_decoder),
      ring_(engine.info().max_steps_in_flight) {
  setups_.reserve(engine.info().max_batch_size);
  slices_.reserve(engine.info().max_batch_size);
  tokens_.reserve(engine.info().max_num_tokens);
  in_step_.reserve(engine.info().max_batch_size);
}

void StepLauncher::look_at_copies() {
  scheduler_.for_each_running([&](Sequence& sequence) {
    if (sequence.is_onboarding && sequence.onboarding)
      sequence.is_onboarding = !engine_.is_copied(*sequence.onboarding);
  });
}

bool StepLauncher::launch(std::span<const ScheduledSequence> sequences, Clock::time_point begin) {
  step_ = &at(num_launched_);
  step_->begin = begin;
  shrink({});
  unmasked_.clear();
  for (const ScheduledSequence& scheduled : sequences) {
    if (!add(scheduled, {})) unmasked_.push_back(&scheduled);
  }
  if (!unmasked_.empty() && num_in_flight_ == 0) {
    const auto deadline = Clock::now() + (slices_.empty() ? kMaskPatience : last_duration_ / kPartOfStep);
    for (const ScheduledSequence* scheduled : unmasked_) add(*scheduled, deadline);
  }
  if (slices_.empty()) return false;
  const auto copies = scheduler_.kv_cache().take_copies();
  try {
    step_->number = engine_.launch({copies, setups_, slices_});
    note_launch(!copies.empty());
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kEngineLost) throw;
    fail(copies, error);
  } catch (const std::exception& exception) {
    fail(copies, Error(ErrorCode::kInternal, concat("the engine failed: ", exception.what())));
  }
  return true;
}

StepInFlight& StepLauncher::take_oldest() {
  StepInFlight& step = at(num_launched_ - num_in_flight_--);
  last_duration_ = Clock::now() - step.begin;
  return step;
}

StepLauncher::Extent StepLauncher::extent() const {
  return {setups_.size(), slices_.size(), tokens_.size(), step_->sequences.size(), step_->slots.size()};
}

void StepLauncher::shrink(const Extent& extent) {
  setups_.resize(extent.setups);
  slices_.erase(slices_.begin() + static_cast<std::ptrdiff_t>(extent.slices), slices_.end());
  tokens_.resize(extent.tokens);
  step_->sequences.erase(step_->sequences.begin() + static_cast<std::ptrdiff_t>(extent.sequences),
                         step_->sequences.end());
  step_->slots.resize(extent.slots);
  in_step_.resize(extent.sequences);
}

// A sequence that cannot take part, for want of memory perhaps, fails alone. False: its mask is not there.
bool StepLauncher::add(const ScheduledSequence& scheduled, Clock::time_point mask_deadline) {
  Sequence& sequence = *scheduled.sequence;
  if (sequence.is_finished()) return true;
  const Extent before = extent();
  try {
    start_guide(sequence);
    const bool samples = scheduled.num_tokens == sequence.num_uncached();
    if (sequence.state->guide && samples && !guided_decoder_->has_mask(sequence.slot, mask_deadline)) return false;
    set_up(sequence);
    add_slices(scheduled);
    in_step_.push_back(&sequence);
  } catch (const std::exception& failure) {
    shrink(before);
    sequence.fail(failure);
  }
  return true;
}

void StepLauncher::start_guide(Sequence& sequence) {
  if (std::exchange(sequence.has_guide_started, true) || guided_decoder_ == nullptr) return;
  if (sequence.state->guide == nullptr) return guided_decoder_->finish(sequence.slot);
  std::vector<int32_t> end_ids = sequence.request.sampling.end_ids;
  std::erase(end_ids, -1);
  guided_decoder_->start(sequence.slot, sequence.state->guide->get(), sequence.generated(), end_ids);
}

void StepLauncher::set_up(Sequence& sequence) {
  if (sequence.is_set_up) return;
  setups_.push_back({.slot = sequence.slot,
                     .sampling = sequence.sampling(),
                     .prompt = sequence.request.input_ids,
                     .generated = sequence.generated()});
  reserve_logits(sequence);
  sequence.is_set_up = true;
}

// Before the step, so that nobody else's fails where there is no memory.
void StepLauncher::reserve_logits(Sequence& sequence) {
  sequence.context_logits.clear();
  if (sequence.returned_logits(/*samples=*/false) == ReturnedLogits::kAll) {
    sequence.context_logits.reserve(sequence.prompt_length * sequence.vocab_size);
  }
  if (sequence.request.return_generation_logits && !sequence.request.streaming) {
    sequence.generation_logits.reserve(sequence.request.max_new_tokens * sequence.vocab_size);
  }
}

void StepLauncher::add_slices(const ScheduledSequence& scheduled) {
  Sequence& sequence = *scheduled.sequence;
  if (!sequence.beams.empty()) return add_beams(sequence);
  SequenceSlice slice;
  slice.slot = sequence.slot;
  slice.tokens = tokens_of(scheduled);
  slice.past_length = sequence.next_position();
  slice.new_block_ids = std::span<const int32_t>(sequence.blocks.block_ids).subspan(sequence.num_sent_blocks);
  slice.samples = scheduled.num_tokens == sequence.num_uncached();
  slice.num_drafts = scheduled.num_drafts;
  slice.returned_logits = sequence.returned_logits(slice.samples);
  if (slice.samples && sequence.state->guide) slice.mask = guided_decoder_->mask(sequence.slot);
  add_slice(slice);
  sequence.num_sent_blocks = static_cast<int32_t>(sequence.blocks.block_ids.size());
  step_->sequences.push_back(
      {.slot = slice.slot,
       .run = sequence.run,
       .num_tokens = scheduled.num_tokens,
       .num_drafts = scheduled.num_drafts,
       .is_context = scheduled.is_context,
       .samples = slice.samples,
       .returned_logits = slice.returned_logits,
       .num_candidates = sequence.is_beam_search() ? sequence.beam_search->num_candidates() : 0,
       .num_top_log_probs = sequence.is_beam_search() ? 0 : static_cast<int32_t>(sequence.num_top_log_probs())});
}

void StepLauncher::add_beams(Sequence& sequence) {
  for (size_t i = 0; i < sequence.beams.size(); ++i) {
    BeamSlot& beam = sequence.beams[i];
    if (beam.parent_slot >= 0) {
      setups_.push_back({.slot = beam.slot,
                         .parent = std::exchange(beam.parent_slot, -1),
                         .num_parent_blocks = beam.num_sent_blocks});
    }
    tokens_.push_back(sequence.beam_search->generated(static_cast<int32_t>(i)).back());
    add_slice({.slot = beam.slot,
               .tokens = std::span(&tokens_.back(), 1),
               .past_length = sequence.next_position(),
               .new_block_ids = std::span<const int32_t>(beam.blocks.block_ids).subspan(beam.num_sent_blocks)});
    beam.num_sent_blocks = static_cast<int32_t>(beam.blocks.block_ids.size());
  }
  step_->sequences.push_back({.slot = sequence.beams.front().slot,
                              .run = sequence.run,
                              .num_slices = static_cast<int32_t>(sequence.beams.size()),
                              .num_tokens = 1,
                              .is_context = false,
                              .samples = true,
                              .num_candidates = sequence.beam_search->num_candidates()});
}

void StepLauncher::add_slice(const SequenceSlice& slice) {
  slices_.push_back(slice);
  step_->slots.push_back(slice.slot);
}

// The sequence's tokens, as far as they are known, and its drafts.
std::span<const int32_t> StepLauncher::tokens_of(const ScheduledSequence& scheduled) {
  const Sequence& sequence = *scheduled.sequence;
  const bool is_known = sequence.num_expected == 0;
  const size_t begin = tokens_.size();
  if (is_known) {
    const auto tokens = std::span(sequence.tokens).subspan(sequence.next_position(), scheduled.num_tokens);
    if (scheduled.num_drafts == 0) return tokens;
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  } else {
    tokens_.push_back(kPreviousToken);
  }
  tokens_.insert(tokens_.end(), sequence.drafts.begin(), sequence.drafts.begin() + scheduled.num_drafts);
  return std::span<const int32_t>(tokens_).subspan(begin);
}

void StepLauncher::note_launch(bool has_copies) {
  ++num_launched_;
  ++num_in_flight_;
  for (size_t i = 0; i < in_step_.size(); ++i) {
    const SequenceInFlight& in_flight = step_->sequences[i];
    Sequence& sequence = *in_step_[i];
    sequence.num_launched += in_flight.num_processed();
    sequence.num_expected += in_flight.num_expected();
    if (in_flight.samples) sequence.drafts.clear();
  }
  if (!has_copies) return;
  scheduler_.for_each_running([&](Sequence& sequence) {
    if (sequence.is_onboarding && !sequence.onboarding) sequence.onboarding = step_->number;
  });
}

// Nothing of the message has taken effect: who is in it, and who needs its copies, cannot go on.
void StepLauncher::fail(std::span<const BlockCopy> copies, const Error& error) {
  log_error("a step of ", in_step_.size(), " sequences failed: ", error.what());
  for (Sequence* sequence : in_step_) sequence->state->error = error;
  if (!copies.empty()) lose(copies, error);
  in_step_.clear();
}

void StepLauncher::lose(std::span<const BlockCopy> copies, const Error& error) {
  scheduler_.kv_cache().forget(copies);
  std::unordered_set<int32_t> lost;
  for (const BlockCopy& copy : copies) lost.insert(copy.destination);
  const auto holds_lost = [&](const BlockList& list) {
    return std::ranges::any_of(list.block_ids, [&](int32_t block) { return lost.contains(block); });
  };
  scheduler_.for_each_running([&](Sequence& sequence) {
    const auto is_lost = [&](const BeamSlot& beam) { return holds_lost(beam.blocks); };
    if (holds_lost(sequence.blocks) || std::ranges::any_of(sequence.beams, is_lost)) sequence.state->error = error;
  });
}

}  // namespace inflight
