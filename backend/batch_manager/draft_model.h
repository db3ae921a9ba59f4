#pragma once

#include <memory>
#include <span>
#include <vector>

#include "batch_manager/kv_cache.h"
#include "batch_manager/sequence.h"
#include "engine/engine.h"

namespace inflight {

// Throws Error (kInvalidArgument) naming what differs if the two engines do not fit together, and both values.
void check_draft_model(const EngineInfo& draft_engine, const EngineInfo& target);

// Drafts for speculative decoding from a smaller model with the same vocabulary (arXiv:2211.17192). It samples as the
// sequence does, with the same random numbers, so that its drafts are often the very tokens that the sequence samples.
class DraftModel {
 public:
  // Slots are the target engine's. Throws as check_draft_model.
  DraftModel(std::shared_ptr<Engine> engine, const EngineInfo& target);

  // Fills `drafts` of each of these sequences, all in generation phase, with up to max_drafts tokens. A sequence whose
  // text the draft model has not read yet, or has no room for, gets none: it reads one step's worth of text at most.
  // Throws what the engine throws; the draft model then begins anew with these sequences.
  void propose(std::span<Sequence* const> sequences, int32_t max_drafts);

 private:
  struct Slot {
    RequestId request = 0;  // whose text it has read, of its sequence `index`; 0: nobody's
    int32_t index = 0;
    int32_t num_read = 0;             // of the sequence's tokens that are in the draft model's cache
    std::vector<int32_t> fed_drafts;  // that follow them there
    BlockList blocks;
    int32_t num_sent_blocks = 0;  // of `blocks`: the engine knows them
  };

  void read_texts(std::span<Sequence* const> sequences, int32_t max_drafts);
  void add_slice(Sequence& sequence, std::span<const int32_t> tokens, int32_t past_length);
  bool extend(Slot& slot, int32_t num_tokens, std::span<Sequence* const> sequences);
  void release(Slot& slot);
  void draft_on(std::span<Sequence* const> sequences, int32_t max_drafts);
  void run_step();

  const std::shared_ptr<Engine> engine_;
  KvCache kv_cache_;
  std::vector<Slot> slots_;
  std::vector<SlotSetup> setups_;
  std::vector<SequenceSlice> slices_;
  std::vector<Sequence*> in_step_;  // of each slice
};

}  // namespace inflight
