#pragma once

#include <chrono>
#include <cstdint>
#include <exception>
#include <span>
#include <vector>

#include "batch_manager/guided/guided_decoder.h"
#include "batch_manager/scheduler.h"
#include "batch_manager/sequence.h"
#include "batch_manager/step_in_flight.h"
#include "engine/engine.h"

namespace inflight {

// Makes the engine's message of what the scheduler chose, launches it, and keeps the steps in flight.
class StepLauncher {
 public:
  using Clock = std::chrono::steady_clock;

  // `guided_decoder` may be null: then no sequence has a guide.
  StepLauncher(Engine& engine, Scheduler& scheduler, GuidedDecoder* guided_decoder);

  // How many steps are in flight, of at most max_steps_in_flight.
  int32_t num_in_flight() const { return num_in_flight_; }
  bool has_room() const { return num_in_flight_ < static_cast<int32_t>(ring_.size()); }

  // Before the scheduler is asked: who has got its blocks from the host tier?
  void look_at_copies();

  // Launches a step of these sequences, but for guided ones whose masks are not there. False: none can take part. There
  // must be room. A launch that fails ends its sequences, and those that need its copies.
  // Throws Error (kEngineLost) and what else ends more than that.
  bool launch(std::span<const ScheduledSequence> sequences, Clock::time_point begin);
  // The sequences of the step launched last.
  std::span<Sequence* const> launched() const { return in_step_; }
  StepInFlight& newest() { return at(num_launched_ - 1); }

  // The oldest step in flight is finished: what is known of it, valid until the next launch.
  StepInFlight& take_oldest();

 private:
  // What a message holds so far.
  struct Extent {
    size_t setups, slices, tokens, sequences, slots;
  };

  StepInFlight& at(uint64_t index) { return ring_[index % ring_.size()]; }
  Extent extent() const;
  void shrink(const Extent& extent);
  bool add(const ScheduledSequence& scheduled, Clock::time_point mask_deadline);
  void start_guide(Sequence& sequence);
  void set_up(Sequence& sequence);
  void reserve_logits(Sequence& sequence);
  void add_slices(const ScheduledSequence& scheduled);
  void add_beams(Sequence& sequence);
  void add_slice(const SequenceSlice& slice);
  std::span<const int32_t> tokens_of(const ScheduledSequence& scheduled);
  void note_launch(bool has_copies);
  void fail(std::span<const BlockCopy> copies, const Error& error);
  void lose(std::span<const BlockCopy> copies, const Error& error);

  Engine& engine_;
  Scheduler& scheduler_;
  GuidedDecoder* const guided_decoder_;

  std::vector<StepInFlight> ring_;
  uint64_t num_launched_ = 0;
  int32_t num_in_flight_ = 0;
  Clock::duration last_duration_{};  // of a step

  // The message that is being made.
  StepInFlight* step_ = nullptr;
  std::vector<SlotSetup> setups_;
  std::vector<SequenceSlice> slices_;
  std::vector<int32_t> tokens_;  // that slices point at, where they are not a sequence's own; never reallocated
  std::vector<Sequence*> in_step_;  // parallel to the step's sequences
  std::vector<const ScheduledSequence*> unmasked_;  // that have no mask yet
};

}  // namespace inflight
