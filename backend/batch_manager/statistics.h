#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "batch_manager/request.h"

namespace inflight {

// KV-cache blocks; what is in no sequence's list is free, even if its tokens are kept for reuse.
struct KvCacheStatistics {
  int32_t total_blocks = 0;
  int32_t free_blocks = 0;
  int32_t used_blocks = 0;        // in at least one sequence's list
  int32_t cached_blocks = 0;      // of the free ones: hold tokens that may be reused
  int32_t total_host_blocks = 0;
  int32_t used_host_blocks = 0;
  int32_t tokens_per_block = 0;
  // Since the start.
  uint64_t allocated_blocks = 0;  // entries of block lists, new or reused; what a fork shares does not count
  uint64_t new_blocks = 0;
  uint64_t reused_blocks = 0;     // shared with, or copied from, what was cached
  uint64_t evicted_blocks = 0;    // lost their tokens
  uint64_t offloaded_blocks = 0;  // copied to the host tier
  uint64_t onboarded_blocks = 0;  // copied back
};

// A snapshot, consistent with itself.
struct Statistics {
  uint64_t steps = 0;            // since the start
  int32_t running_sequences = 0;
  int32_t queued_sequences = 0;  // waiting to start
  int32_t paused_sequences = 0;  // waiting to go on
  int32_t max_sequences = 0;     // the engine's slots
  int32_t free_blocks = 0;
  int32_t total_blocks = 0;
  KvCacheStatistics kv_cache;
  // Since the start.
  uint64_t context_tokens = 0;
  uint64_t generated_tokens = 0;
  uint64_t draft_tokens = 0;
  uint64_t accepted_draft_tokens = 0;
  uint64_t pauses = 0;
};

// One step.
struct StepStatistics {
  uint64_t step = 0;                     // its number
  std::chrono::microseconds duration{};  // of scheduling and the step
  int32_t running_sequences = 0;
  int32_t queued_sequences = 0;
  int32_t paused_sequences = 0;
  int32_t scheduled_slices = 0;   // in this step: beams counted each
  int32_t context_slices = 0;
  int32_t generation_slices = 0;
  int32_t context_tokens = 0;     // in this step
  int32_t generation_tokens = 0;  // in this step, drafts counted
  int32_t free_blocks = 0;
  int32_t used_blocks = 0;
};

// The times of one request that has ended, whatever way.
struct RequestTimes {
  RequestId id = 0;
  std::chrono::microseconds queue{};                              // until its first step
  std::optional<std::chrono::microseconds> time_to_first_token;  // from submission
  std::optional<std::chrono::microseconds> inter_token_latency;  // mean over the tokens after the first
  std::chrono::microseconds total{};
  int32_t prompt_tokens = 0;
  int32_t generated_tokens = 0;  // over all sequences
  FinishReason finish_reason = FinishReason::kNone;
  bool failed = false;
};

}  // namespace inflight
