#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/engine.h"

namespace inflight {

// A StepInput that owns its memory: for an engine that runs it later, or in another process.
//
// As bytes it is a header and the parts of StepInput one after another, numbers as this kind of machine has them. What
// is read is whole, but not checked against any engine: StepCheck does that.
class StepMessage {
 public:
  StepMessage() = default;
  StepMessage(StepMessage&&) = default;
  StepMessage& operator=(StepMessage&&) = default;

  // Takes a copy. What it held before is gone; its memory is used again.
  void assign(const StepInput& input);
  // Throws Error (kInvalidArgument) naming the part that is cut off, too long, or of no meaning.
  void read(std::span<const std::byte> bytes);

  // Valid until the next assign() or read().
  StepInput input() const { return {copies_, setups_, slices_}; }

 private:
  std::vector<BlockCopy> copies_;
  std::vector<SlotSetup> setups_;
  std::vector<SequenceSlice> slices_;
  // What setups and slices point at.
  std::vector<int32_t> numbers_;
  std::vector<uint32_t> mask_words_;
};

// Appends the message to `bytes`.
void write_step(const StepInput& input, std::vector<std::byte>& bytes);

}  // namespace inflight
