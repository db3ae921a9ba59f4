#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "batch_manager/kv_cache.h"
#include "batch_manager/sequence.h"
#include "engine/engine.h"

namespace inflight {

// The next `num_tokens` uncached tokens of a sequence: a context chunk or one generated token.
struct ScheduledChunk {
  Sequence* sequence;
  int32_t num_tokens;
};

// Decides what each step runs: every sequence in generation phase, then context chunks first come, first
// served, up to max_num_tokens. A waiting sequence is admitted when there is a slot and its whole length
// can be reserved in the KV cache (guaranteed_no_evict); none overtakes the first that waits.
class Scheduler {
 public:
  Scheduler(const EngineInfo& info, bool enable_chunked_context);

  void add(std::unique_ptr<Sequence> sequence) { waiting_.push_back(std::move(sequence)); }

  // The chunks of the next step; their sequences have a slot and blocks for these tokens. Valid until
  // the next call. Empty only if nothing waits or runs.
  const std::vector<ScheduledChunk>& schedule();

  // Removes the sequences for which is_finished() holds and frees their slots and blocks.
  std::vector<std::unique_ptr<Sequence>> take_finished();

  template <class Visit>
  void for_each(Visit visit) {
    for (auto& sequence : running_) visit(*sequence);
    for (auto& sequence : waiting_) visit(*sequence);
  }

  bool empty() const { return waiting_.empty() && running_.empty(); }
  int32_t num_waiting() const { return static_cast<int32_t>(waiting_.size()); }
  int32_t num_running() const { return static_cast<int32_t>(running_.size()); }
  const KvCache& kv_cache() const { return kv_cache_; }

 private:
  bool admit_first_waiting();
  // Schedules as much of the sequence as the budget allows; false if that is nothing.
  bool add_chunk(Sequence& sequence, int32_t& budget);
  void release(Sequence& sequence);

  const int32_t max_num_tokens_;
  const bool enable_chunked_context_;
  KvCache kv_cache_;
  std::vector<int32_t> free_slots_;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;  // in the order of admission
  std::vector<ScheduledChunk> chunks_;
};

}  // namespace inflight
