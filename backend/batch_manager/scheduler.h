#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "batch_manager/batch_manager.h"
#include "batch_manager/kv_cache.h"
#include "batch_manager/logits_budget.h"
#include "batch_manager/request_queue.h"
#include "batch_manager/sequence.h"
#include "engine/engine.h"

namespace inflight {

// What a step takes of a sequence: its next `num_tokens` uncached tokens, a context chunk or one generated token (of
// each of its beams), and then `num_drafts` of its drafts.
struct ScheduledSequence {
  Sequence* sequence;
  int32_t num_tokens;
  int32_t num_drafts;
  bool is_context;
};

// What a step has room for.
struct StepBudget {
  int32_t tokens;
  int32_t logits;  // rows of StepOutput::logits
};

// Decides what each step runs, up to max_num_tokens: every sequence in generation phase, then context chunks in the
// order of their ranks, then drafts. Waiting sequences start in the order of their ranks as well, as the policy allows,
// and none overtakes the first that waits, except that sequences of a request wait until its prompt is computed once.
class Scheduler {
 public:
  Scheduler(const EngineInfo& info, SchedulerPolicy policy, bool enable_chunked_context, bool enable_kv_cache_reuse);

  // The request's sequences wait; each is made when it may start.
  void add(std::shared_ptr<RequestState> request);

  // Who is in the next step; these sequences have a slot and blocks for their tokens. Valid until the next call.
  // Empty only if nothing can run: nothing waits or runs, or all wait for blocks from the host tier; then, with
  // `wait_for_host`, those are scheduled and the step will wait.
  const std::vector<ScheduledSequence>& schedule(bool wait_for_host = false);

  // num_cached has grown after a step: others may share the full blocks.
  void commit(Sequence& sequence);

  // The running beams become `choices`, each a continuation of the running beam `parent`; as many as the beam width. A
  // parent's first child takes over its slot and blocks; the others are forks of it.
  // Throws Error if the promised blocks do not suffice, which would be a fault of this class.
  void reorder_beams(Sequence& sequence, std::span<const BeamChoice> choices);

  // The sequence of this run, which has had the slot since its start; null if it has ended or paused.
  Sequence* find(int32_t slot, uint64_t run) const {
    Sequence* const sequence = sequences_[slot];
    return sequence != nullptr && sequence->run == run ? sequence : nullptr;
  }

  // Moves the sequences for which is_finished() holds to the end of finished(), and frees their slots and blocks; and
  // the requests that have ended before all of their sequences were made to the end of ended(). The caller empties
  // both.
  void collect_finished();
  std::vector<std::unique_ptr<Sequence>>& finished() { return finished_; }
  std::vector<std::shared_ptr<RequestState>>& ended() { return ended_; }

  template <class Visit>
  void for_each(Visit visit) {
    for (auto& sequence : running_) visit(*sequence);
    for (auto& sequence : waiting_) visit(*sequence);
  }
  template <class Visit>
  void for_each_running(Visit visit) {
    for (auto& sequence : running_) visit(*sequence);
  }

  // Requests of which some sequences are made, and others wait.
  template <class Visit>
  void for_each_opened(Visit visit) {
    for (auto& request : opened_) visit(*request);
  }
  // Requests of which no sequence is made; they are in one of these.
  std::array<RequestQueue*, 2> queues() { return {&queue_, &logits_queue_}; }
  // A request in a queue has ended: it moves to ended().
  void remove_ended(const RequestState& request);
  // The request that starts next, or goes on; null if none waits.
  std::shared_ptr<RequestState> first_waiting() const;

  bool empty() const {
    return waiting_.empty() && running_.empty() && opened_.empty() && queue_.empty() && logits_queue_.empty();
  }
  int32_t num_running() const { return static_cast<int32_t>(running_.size()); }
  int32_t num_queued() const { return num_queued_; }  // waiting, nothing generated
  int32_t num_paused() const { return num_paused_; }  // waiting to go on
  uint64_t num_pauses() const { return num_pauses_; }
  KvCache& kv_cache() { return kv_cache_; }

 private:
  void schedule_generation();
  bool schedule_contexts();
  void start_waiting();
  void schedule_drafts();
  // Blocks for the sequence's next token, pausing others if the policy allows that, or in the end itself.
  bool make_room(size_t& index);
  bool add_context_chunk(Sequence& sequence);

  bool may_start(const Sequence& sequence) const;
  RequestQueue& queue_of(const RequestState& request);
  std::shared_ptr<RequestState> next_request(bool joins_only) const;
  std::optional<size_t> make_sequence(const std::shared_ptr<RequestState>& request);
  bool start(Sequence& sequence);
  bool reserve_beams(Sequence& sequence);
  void pause(size_t index);
  void release(Sequence& sequence);
  void stop(Sequence& sequence);
  void commit_beams(Sequence& sequence);
  int32_t blocks_to_start(const Sequence& sequence) const;
  int32_t blocks_to_go_on(const Sequence& sequence) const;
  int32_t take_slot(Sequence& sequence);
  void free_slot(int32_t slot);

  const EngineInfo info_;
  const SchedulerPolicy policy_;
  const bool enable_chunked_context_;
  const bool enable_kv_cache_reuse_;
  KvCache kv_cache_;
  std::vector<int32_t> free_slots_;
  std::vector<Sequence*> sequences_;  // by slot; null: it is free
  uint64_t num_runs_ = 0;
  // Who waits: requests by rank, those of which some sequences are made, and sequences by rank, which are paused or
  // have tried to start. Only the queues grow with the load. Requests that return logits wait for memory as well, apart
  // from those that need none.
  RequestQueue queue_;
  RequestQueue logits_queue_;
  LogitsBudget logits_budget_;
  std::vector<std::shared_ptr<RequestState>> opened_;
  std::vector<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;  // by rank
  std::vector<ScheduledSequence> scheduled_;
  StepBudget budget_{};  // what is left of the step
  std::vector<std::unique_ptr<Sequence>> finished_;
  std::vector<std::shared_ptr<RequestState>> ended_;
  std::vector<int32_t> beam_tokens_;
  bool paused_now_ = false;  // in this step: what was paused must not start again at once
  int32_t num_queued_ = 0;
  int32_t num_paused_ = 0;
  uint64_t num_pauses_ = 0;
};

}  // namespace inflight
