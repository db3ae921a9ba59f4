#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "batch_manager/guided/guided_decoder.h"
#include "batch_manager/scheduler.h"
#include "batch_manager/sequence.h"
#include "batch_manager/step_in_flight.h"
#include "engine/engine.h"

namespace inflight {

// Since the start, of finished steps.
struct StepCounts {
  uint64_t steps = 0;
  uint64_t context_tokens = 0;
  uint64_t generated_tokens = 0;
  uint64_t draft_tokens = 0;
  uint64_t accepted_draft_tokens = 0;
};

// Hands what a step gave to its sequences: tokens, candidates and logits. What belongs to a sequence that has ended or
// paused meanwhile is passed over.
class StepResults {
 public:
  // `guided_decoder` may be null: then no sequence has a guide.
  StepResults(const EngineInfo& info, Scheduler& scheduler, GuidedDecoder* guided_decoder,
              const PromptLookupOptions& prompt_lookup);

  void take(const StepInFlight& step, const StepOutput& output, RequestState::Clock::time_point now);
  // The step failed: that ends the sequences that were in it; the others go on.
  void fail(const StepInFlight& step, const Error& error);

  // The sequences that the last call looked at.
  std::span<Sequence* const> sequences() const { return sequences_; }
  const StepCounts& counts() const { return counts_; }

 private:
  // What the slices of one sequence gave.
  struct Share {
    const SlotFailure* failure = nullptr;
    std::span<const SampledToken> tokens;
    std::span<const TokenLogProb> top_log_probs;
    std::span<const float> logits;
  };

  Share next_share(const SequenceInFlight& in_flight, std::span<const int32_t> slots);
  std::span<const SampledToken> next_tokens(const SequenceInFlight& in_flight, int32_t num_slices);
  std::span<const TokenLogProb> next_top_log_probs(size_t count);
  std::span<const float> next_logits(const SequenceInFlight& in_flight, size_t num_sampled);
  Sequence* sequence_of(const SequenceInFlight& in_flight);

  void take(Sequence& sequence, const SequenceInFlight& in_flight, const Share& share);
  void take_tokens(Sequence& sequence, const SequenceInFlight& in_flight, const Share& share);
  void take_candidates(Sequence& sequence, std::span<const SampledToken> candidates);
  void take_logits(Sequence& sequence, const SequenceInFlight& in_flight, const Share& share);
  void check_guide_end(Sequence& sequence);
  bool looks_up_drafts(const Sequence& sequence) const;
  void look_up_drafts(Sequence& sequence, int32_t num_new);
  void note_token(Sequence& sequence) const;

  const size_t vocab_size_;
  Scheduler& scheduler_;
  GuidedDecoder* const guided_decoder_;
  const PromptLookupOptions prompt_lookup_;
  std::vector<Sequence*> sequences_;
  StepOutput output_;
  RequestState::Clock::time_point now_;  // when it was there
  size_t next_token_ = 0;         // in output_.tokens
  size_t next_top_log_prob_ = 0;  // in output_.top_log_probs
  size_t next_logit_ = 0;         // in output_.logits
  StepCounts counts_;
};

}  // namespace inflight
