#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "batch_manager/statistics.h"
#include "engine/engine.h"

namespace inflight {

// What was launched of a sequence, which may end or pause before the step is finished: Scheduler::find() knows.
struct SequenceInFlight {
  int32_t slot;  // the sequence's, or its first beam's
  uint64_t run;
  int32_t num_slices = 1;  // of its beams
  int32_t num_tokens;      // of each slice, without drafts
  int32_t num_drafts = 0;
  bool is_context;
  bool samples;
  ReturnedLogits returned_logits = ReturnedLogits::kNone;
  int32_t num_candidates = 0;     // that each slice returns; 0: one token, and those of accepted drafts
  int32_t num_top_log_probs = 0;  // for each token

  int32_t num_processed() const { return num_tokens + num_drafts; }
  int32_t num_expected() const { return samples ? 1 + num_drafts : 0; }  // tokens that it may sample
};

// A step that was launched.
struct StepInFlight {
  StepNumber number = 0;
  std::vector<SequenceInFlight> sequences;
  std::vector<int32_t> slots;  // of their slices, in order
  std::chrono::steady_clock::time_point begin;  // of its scheduling
  StepStatistics statistics;
};

}  // namespace inflight
