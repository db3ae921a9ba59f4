#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "engine/engine.h"

namespace inflight::test {

// Steps of an engine for tests that have a slot's whole block list at hand: the new_block_ids of the slices that it is
// given. It sends what is new, and sets slots up: as told, and anew when a list no longer goes on as it began.
class StepDriver {
 public:
  explicit StepDriver(Engine& engine) : engine_(engine) {}

  // With the next step.
  void set_up(int32_t slot, const SamplingConfig& sampling = {}, std::span<const int32_t> prompt = {},
              std::span<const int32_t> generated = {}) {
    slots_[slot] = {sampling, {prompt.begin(), prompt.end()}, {generated.begin(), generated.end()}};
  }
  void copy(const std::vector<BlockCopy>& copies) { copies_.insert(copies_.end(), copies.begin(), copies.end()); }

  StepNumber launch(std::vector<SequenceSlice> slices = {}) {
    std::vector<SlotSetup> setups;
    std::map<int32_t, Slot> after = slots_;
    for (SequenceSlice& slice : slices) {
      Slot& slot = after[slice.slot];
      const std::vector<int32_t> list(slice.new_block_ids.begin(), slice.new_block_ids.end());
      if (!slot.is_set_up || !goes_on(slot.sent, list)) {
        const Slot& told = slots_[slice.slot];
        setups.push_back(
            {.slot = slice.slot, .sampling = told.sampling, .prompt = told.prompt, .generated = told.generated});
        slot.is_set_up = true;
        slot.sent.clear();
      }
      slice.new_block_ids = slice.new_block_ids.subspan(slot.sent.size());
      slot.sent = list;
    }
    const auto copies = std::exchange(copies_, {});
    const StepNumber step = engine_.launch({copies, setups, slices});
    slots_ = std::move(after);
    return step;
  }

  StepOutput run(std::vector<SequenceSlice> slices) {
    launch(std::move(slices));
    return engine_.finish();
  }

 private:
  struct Slot {
    SamplingConfig sampling = {};
    std::vector<int32_t> prompt = {};
    std::vector<int32_t> generated = {};
    bool is_set_up = false;
    std::vector<int32_t> sent = {};
  };

  // Whether the list begins with what was sent, but for blocks that the window has left behind.
  static bool goes_on(const std::vector<int32_t>& sent, const std::vector<int32_t>& list) {
    const auto is_same = [](int32_t a, int32_t b) { return a == b || b == kFreedBlock; };
    return sent.size() <= list.size() && std::equal(sent.begin(), sent.end(), list.begin(), is_same);
  }

  Engine& engine_;
  std::map<int32_t, Slot> slots_;
  std::vector<BlockCopy> copies_;
};

}  // namespace inflight::test
