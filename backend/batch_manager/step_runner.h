#pragma once

#include <exception>
#include <span>
#include <vector>

#include "batch_manager/guided/guided_decoder.h"
#include "batch_manager/scheduler.h"
#include "batch_manager/sequence.h"
#include "engine/engine.h"

namespace inflight {

struct StepCounts {
  uint64_t steps = 0;
  uint64_t context_tokens = 0;
  uint64_t generated_tokens = 0;
  uint64_t draft_tokens = 0;
  uint64_t accepted_draft_tokens = 0;
};

// Runs what the scheduler chose on the engine and hands the sampled tokens to their sequences.
class StepRunner {
 public:
  // `guided_decoder` may be null: then no sequence has a guide.
  StepRunner(Engine& engine, Scheduler& scheduler, GuidedDecoder* guided_decoder,
             const PromptLookupOptions& prompt_lookup);

  // Starts the block copies that scheduling asked for; sequences that wait for one note its handle. Copies that fail
  // end the sequences that need them.
  void start_copies();
  // Runs one step. A step that fails sets the error of every sequence in it.
  void run(const std::vector<ScheduledChunk>& chunks);

  const StepCounts& counts() const { return counts_; }  // since the start

 private:
  void lose_copies(std::span<const BlockCopy> copies, const std::exception& failure);
  void add(const ScheduledChunk& chunk);
  void configure(Sequence& sequence);
  void reserve_logits(Sequence& sequence);
  void add_slices(const ScheduledChunk& chunk);
  void fail(const std::vector<ScheduledChunk>& chunks, const Error& error);
  void fail(Sequence& sequence, const std::exception& failure);
  void take_output(const ScheduledChunk& chunk);
  void take_output(const ScheduledChunk& chunk, std::span<const SampledToken> tokens,
                   std::span<const TokenLogProb> top);
  void take_tokens(const ScheduledChunk& chunk, std::span<const SampledToken> tokens,
                   std::span<const TokenLogProb> top);
  void take_candidates(Sequence& sequence, std::span<const SampledToken> candidates);
  void check_guide_end(Sequence& sequence);
  bool looks_up_drafts(const Sequence& sequence) const;
  void look_up_drafts(Sequence& sequence, int32_t num_new);
  void note_token(RequestState& state);
  void take_logits(const ScheduledChunk& chunk, const SequenceSlice& slice, size_t num_sampled,
                   std::span<const float> logits);
  std::span<const SampledToken> next_tokens(const ScheduledChunk& chunk);
  std::span<const TokenLogProb> next_top_log_probs(const Sequence& sequence, size_t num_tokens);
  std::span<const float> next_logits(const SequenceSlice& slice, size_t num_sampled);

  Engine& engine_;
  Scheduler& scheduler_;
  GuidedDecoder* const guided_decoder_;
  const PromptLookupOptions prompt_lookup_;
  std::vector<const ScheduledChunk*> in_step_;
  std::vector<SequenceSlice> slices_;
  std::vector<int32_t> joined_tokens_;  // what slices with drafts, or of beams, point at; never reallocated
  size_t next_slice_ = 0;
  StepOutput output_;
  size_t next_token_ = 0;  // in output_.tokens
  size_t next_top_log_prob_ = 0;  // in output_.top_log_probs
  size_t next_logit_ = 0;         // in output_.logits
  StepCounts counts_;
};

}  // namespace inflight
