#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "engine/engine.h"

namespace inflight {

// Rejects what would touch memory that is not the step's, and what contradicts itself, before an engine runs it. Looks
// at what a step brings, and remembers of each slot what it needs to know of the steps before.
class StepCheck {
 public:
  explicit StepCheck(const EngineInfo& info);

  // Throws kInvalidArgument naming the slot and the value; then the step counts as one that never was.
  void check(const StepInput& input);

 private:
  struct Slot {
    bool is_given = false;  // to a sequence
    bool has_candidates = false;
    bool has_sampled = false;
    int64_t num_blocks = 0;
    uint64_t last_setup = 0;  // by number of steps checked
    uint64_t last_slice = 0;
  };

  void check_all(const StepInput& input);
  void check(const BlockCopy& copy) const;
  void take(const SlotSetup& setup);
  void take(const SequenceSlice& slice);
  void check_slot(const char* what, int32_t slot) const;
  void check_extent(const SequenceSlice& slice, int64_t num_blocks) const;
  void check_tokens(const SequenceSlice& slice, const Slot& slot) const;
  void check_blocks(const SequenceSlice& slice, int64_t first) const;
  void check_sampling(const SequenceSlice& slice, const Slot& slot) const;
  Slot& change(int32_t slot);

  const EngineInfo& info_;
  std::vector<Slot> slots_;
  std::vector<std::pair<int32_t, Slot>> changed_;  // in the present step, as they were before
  uint64_t num_steps_ = 0;
};

}  // namespace inflight
