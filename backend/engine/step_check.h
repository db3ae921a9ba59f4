#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/engine.h"

namespace inflight {

// Rejects what would touch memory that is not the step's, and what contradicts itself, before an engine runs it.
class StepCheck {
 public:
  explicit StepCheck(const EngineInfo& info);

  // These throw kInvalidArgument naming the slot and the value.
  void configure(int32_t slot, const SamplingConfig& config);
  void check(const StepInput& input);
  void check(std::span<const BlockCopy> copies) const;

 private:
  struct Slot {
    bool has_candidates = false;
    uint64_t last_step = 0;  // by number of steps checked
  };

  void check_extent(const SequenceSlice& slice) const;
  void check_tokens(const SequenceSlice& slice) const;
  void check_blocks(const SequenceSlice& slice) const;
  void check_sampling(const SequenceSlice& slice, const StepInput& input) const;

  const EngineInfo& info_;
  std::vector<Slot> slots_;
  uint64_t num_steps_ = 0;
};

}  // namespace inflight
