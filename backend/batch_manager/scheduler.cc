#include "batch_manager/scheduler.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace inflight {
namespace {

// Moves the finished sequences of a container behind `finished`, keeping the order of the others.
template <class Sequences>
void move_finished(Sequences& sequences, std::vector<std::unique_ptr<Sequence>>& finished) {
  const auto first = std::stable_partition(sequences.begin(), sequences.end(),
                                           [](const auto& sequence) { return !sequence->is_finished(); });
  std::move(first, sequences.end(), std::back_inserter(finished));
  sequences.erase(first, sequences.end());
}

}  // namespace

Scheduler::Scheduler(const EngineInfo& info, bool enable_chunked_context)
    : max_num_tokens_(info.max_num_tokens),
      enable_chunked_context_(enable_chunked_context),
      kv_cache_({.num_blocks = info.num_blocks, .tokens_per_block = info.tokens_per_block}) {
  for (int32_t slot = info.max_batch_size - 1; slot >= 0; --slot) free_slots_.push_back(slot);
}

const std::vector<ScheduledChunk>& Scheduler::schedule() {
  chunks_.clear();
  int32_t budget = max_num_tokens_;
  for (auto& sequence : running_) {
    if (!sequence->in_context_phase()) add_chunk(*sequence, budget);
  }
  // A context that does not fit closes the step to those behind it, so that nothing overtakes it for ever.
  for (auto& sequence : running_) {
    if (sequence->in_context_phase() && !add_chunk(*sequence, budget)) return chunks_;
  }
  while (budget > 0 && admit_first_waiting()) {
    if (!add_chunk(*running_.back(), budget)) break;
  }
  return chunks_;
}

bool Scheduler::admit_first_waiting() {
  if (waiting_.empty() || free_slots_.empty()) return false;
  Sequence& sequence = *waiting_.front();
  const int32_t needed = kv_cache_.blocks_for(sequence.max_cached_tokens());
  if (!kv_cache_.admit(sequence.blocks, {}, needed, false)) return false;
  sequence.slot = free_slots_.back();
  free_slots_.pop_back();
  running_.push_back(std::move(waiting_.front()));
  waiting_.pop_front();
  return true;
}

bool Scheduler::add_chunk(Sequence& sequence, int32_t& budget) {
  const int32_t wanted = sequence.num_uncached();
  if (budget == 0 || (wanted > budget && !enable_chunked_context_)) return false;
  const int32_t num_tokens = std::min(wanted, budget);
  kv_cache_.extend(sequence.blocks, sequence.num_cached + num_tokens);
  sequence.num_blocks = static_cast<int32_t>(sequence.blocks.block_ids.size());
  chunks_.push_back({&sequence, num_tokens});
  budget -= num_tokens;
  return true;
}

std::vector<std::unique_ptr<Sequence>> Scheduler::take_finished() {
  std::vector<std::unique_ptr<Sequence>> finished;
  move_finished(running_, finished);
  for (auto& sequence : finished) release(*sequence);
  move_finished(waiting_, finished);
  return finished;
}

void Scheduler::release(Sequence& sequence) {
  kv_cache_.release(sequence.blocks);
  free_slots_.push_back(sequence.slot);
}

}  // namespace inflight
